"""Other systems on the same questions, the same model file and the same machine."""
