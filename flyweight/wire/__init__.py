"""Models on other machines: everything that policies and verifiers share to speak to HTTP endpoints.

background.py  the one thread in which it all goes on
address.py     which URLs may be named, and the key that is sent to them
client.py      one endpoint: requests with a limit on everything that comes back
backoff.py     how long to wait before another try, and how many tries there may be
pool.py        several endpoints behind one door: who is asked, who is left alone for a while
"""
