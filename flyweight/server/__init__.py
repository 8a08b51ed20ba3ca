"""An OpenAI-compatible server over the runner: any client gets searched answers by changing the base URL.

app.py        routes
guard.py      what is checked before any of them
schema.py     what a request may hold
limits.py     how large, and how much work it may ask for
auth.py       keys, hosts, origins
choosing.py   which strategy answers: body, headers, model name, presets
asking.py     from a checked request to searches
grammar.py    JSON schemas as grammars
tools.py      functions offered, called and voted on
job.py        one logical request, for everybody who waits for it
desk.py       which jobs are served, which wait, and who is sent away
engine.py     the one thread that drives the runner
passing.py    the model alone, every token told as it comes
watch.py      what happened in a search, as events and as one line of progress
tokens.py     tokens as text: stop strings, log-probabilities
reply.py      from results to OpenAI's objects
stream.py     server-sent events
errors.py     what goes wrong, in OpenAI's shape
metrics.py    Prometheus
openapi.py    the interface described
ui.py         the viewer's page and its questions
setup.py      from settings to a server
serving.py    the process: sockets, slow clients, draining

The event loop never computes; the engine's thread never waits for a client.
"""
