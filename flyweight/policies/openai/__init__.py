"""Models behind any OpenAI-compatible URL: vLLM, SGLang, llama-server, Ollama, hosted APIs (see docs/remote.md).

spec.py       what `openai:URL[,URL...][#NAME][:setting=value...]` says
probe.py      what an endpoint can do, found out by asking it a few short things
abilities.py  the findings
prompt.py     paths as conversations or as text in the model's template
asking.py     the bodies of requests
reply.py      a choice as it comes in: stop strings, caps, log-probabilities
usage.py      what an answer cost, by the server's count where it makes sense
row.py        a request of the runner over all its tries
service.py    what happens to requests in the background: endpoint, tries, answer, cost
policy.py     OpenAI: the policy
"""
