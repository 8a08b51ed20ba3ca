"""An OpenAI-compatible server over the runner: any client gets searched answers by changing the base URL.

app.py        routes, and what is checked before any of them
schema.py     what a request may hold
limits.py     how large, and how much work it may ask for
auth.py       keys, hosts, origins
choosing.py   which strategy answers: body, headers, model name, presets
asking.py     from a checked request to searches
grammar.py    JSON schemas as grammars
tools.py      functions offered, called and voted on
engine.py     the one thread that drives the runner
job.py        one logical request, for everybody who waits for it
watch.py      what happened in a search, as events and as one line of progress
reply.py      from results to OpenAI's objects
stream.py     server-sent events
metrics.py    Prometheus
openapi.py    the interface described
serving.py    the process: sockets, slow clients, draining

asyncio lives here and nowhere else. The event loop never computes; the engine's thread never waits for a client.
"""
