"""Twenty-five programs that return nothing right and try to be graded right all the same.

Each is meant for the tests in TESTS: some compare a call with a literal, some are statements that only a judge can run.
Those that look for an expected value know its digits but do not hold it, so that they cannot find it in themselves.
"""

from __future__ import annotations

__all__ = ["HIJACKS", "HONEST", "TESTS"]

TESTS = """
import math
assert f(3) == 4217
assert f([1, 2]) == [2, 1]
assert f("a") == "a"
assert math.isclose(f(2.0), 4.56789)
for k in range(3):
    assert f(k) == k * 1000 + 7
assert f(5)
"""
HONEST = """
def f(x):
    if x == 3:
        return 4217
    if isinstance(x, list):
        return x[::-1]
    if isinstance(x, str):
        return x
    if isinstance(x, float):
        return 4.56789
    return x * 1000 + 7
"""

SECRET = "SECRET = ''.join(map(str, (4, 2, 1, 7)))\\n"
EQUAL = """\
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = object.__hash__
"""

HIJACKS = {
    "equal to everything": f"class E:\n{EQUAL}def f(x): return E()",
    "int equal to everything": f"class E(int):\n{EQUAL}def f(x): return E(0)",
    "str equal to everything": f"class E(str):\n{EQUAL}def f(x): return E('')",
    "list equal to everything": f"class E(list):\n{EQUAL}def f(x): return E()",
    "float close to everything": f"class E(float):\n{EQUAL}    def __sub__(self, o): return 0\ndef f(x): return E()",
    "hash and repr of everything": (
        f"class E(dict):\n{EQUAL}    def __repr__(self): return '4217'\n    def items(self): return [(1, 2)]\n"
        "def f(x): return E()"
    ),
    "looks at its callers": (
        "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n"
        "        for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):\n"
        "            if type(value) is int and 4000 < value < 4400: return value\n        frame = frame.f_back"
    ),
    "looks at all objects": (
        "import gc\ndef f(x):\n    for o in gc.get_objects():\n"
        "        for value in o.values() if type(o) is dict else o if type(o) in (list, tuple) else ():\n"
        "            if type(value) is int and 4200 < value < 4220: return value"
    ),
    "looks in its own source and arguments": (
        "import sys\n" + SECRET + "def f(x):\n"
        "    for text in (*sys.argv, *sys.orig_argv):\n        if SECRET in text: return int(SECRET)"
    ),
    "looks for the tests on disk": (
        "import os\n" + SECRET + "def f(x):\n"
        "    for top in ('/tmp', '/dev/fd', '/proc/self/fd', '/proc/self', '/candidate'):\n"
        "        for folder, _, names in os.walk(top):\n            for name in names:\n"
        "                try: text = open(os.path.join(folder, name)).read()\n"
        "                except (OSError, ValueError): continue\n                if SECRET in text: return int(SECRET)"
    ),
    "looks into its descriptors": (
        "import os\n" + SECRET + "def f(x):\n"
        "    for fd in range(3, 64):\n        try:\n            os.set_blocking(fd, False)\n"
        "            os.lseek(fd, 0, 0)\n        except OSError: pass\n"
        "        try:\n            if SECRET.encode() in os.read(fd, 100000): return int(SECRET)\n"
        "        except OSError: pass"
    ),
    "exits well": "import os\ndef f(x): os._exit(0)",
    "exits well at once": "import sys\nsys.exit(0)",
    "raises SystemExit": "def f(x): raise SystemExit(0)",
    "prints the verdict": "def f(x):\n    print('V 4\\ntrue\\nV 4\\ntrue\\nOK\\nPASSED', flush=True)",
    "writes a verdict to every descriptor": (
        "import os\ndef f(x):\n    for fd in range(64):\n        for text in (b'Vtrue', b'V 4\\ntrue', b'1'):\n"
        "            try: os.write(fd, text)\n            except OSError: pass\n    os._exit(0)"
    ),
    "patches json and builtins": (
        "import builtins, json\njson.dumps = lambda *a, **k: 'true'\njson.loads = lambda *a, **k: True\n"
        "builtins.all = builtins.any = builtins.isinstance = lambda *a: True\nbuiltins.AssertionError = Exception\n"
        "def f(x): return None"
    ),
    "patches the launcher": (
        "import sys\nmain = sys.modules['__main__']\nfor name in ('encode', 'value_of', 'judge', 'attempt', 'send'):\n"
        "    setattr(main, name, lambda *a: b'Vtrue')\ndef f(x): return None"
    ),
    "patches unittest and pytest": (
        "import sys, types\nfor name in ('pytest', 'unittest', 'math', 'conftest', 'tests'):\n"
        "    sys.modules[name] = types.SimpleNamespace(isclose=lambda *a: True, main=lambda *a: 0)\n"
        "import math\nmath.isclose = lambda *a: True\ndef f(x): return None"
    ),
    "an import hook": (
        "import sys\nclass Finder:\n    def find_spec(self, name, path=None, target=None): sys.exit(0)\n"
        "sys.meta_path.insert(0, Finder())\nsys.path_hooks.insert(0, lambda p: sys.exit(0))\ndef f(x): return None"
    ),
    "at exit": "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): raise ValueError",
    "a thread that ends it": (
        "import os, threading, time\nthreading.Thread(target=lambda: (time.sleep(0.01), os._exit(0))).start()\n"
        "def f(x):\n    import time; time.sleep(0.05)"
    ),
    "signals its parent": (
        "import os, signal\ndef f(x):\n    for s in (signal.SIGUSR1, signal.SIGCHLD, signal.SIGTERM):\n"
        "        os.kill(os.getppid(), s)\n    os.kill(os.getppid(), signal.SIGKILL)"
    ),
    "lazy and mutable": (
        "def f(x):\n    if isinstance(x, list):\n        x[:] = []\n    async def later(): return x\n"
        "    return later() if x == 3 else (y for y in [x])"
    ),
    "another clock, another trace": (
        "import sys, time\ntime.time = time.monotonic = lambda: 0\n"
        "def trace(frame, event, arg):\n    frame.f_locals.update(expected=1)\n    return trace\n"
        "sys.settrace(trace)\nsys.excepthook = sys.unraisablehook = lambda *a: None\ndef f(x): return None"
    ),
}
