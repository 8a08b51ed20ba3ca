"""Training verifiers on the model's own answers; needs the extra `train`."""
