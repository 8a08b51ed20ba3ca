"""Try a build: exit code 0 if it works. A build that crashes takes only this process with it."""

import sys
from pathlib import Path

from flyweight.policies.llamacpp.kernels import check

if __name__ == "__main__":
    if problem := check(Path(sys.argv[1])):
        sys.exit(print(problem) or 1)
