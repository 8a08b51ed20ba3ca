# The newest Python that really runs (a version manager's shim may exist and fail); PYTHON=... overrides.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

# The built engine and the models are kept in the user's cache folder, or here if that is not his to write to.
export XDG_CACHE_HOME ?= $(shell d="$$HOME/.cache"; mkdir -p "$$d" 2>/dev/null && test -O "$$d" -a -w "$$d" \
	|| d="$(CURDIR)/.cache"; echo "$$d")

bootstrap = $(or $(PYTHON),$(error Flyweight needs Python 3.11 or newer, and there is none on the PATH)) \
	scripts/bootstrap.py
bin = .venv/bin

.PHONY: demo test
demo:
	@$(bootstrap) local
	@$(bin)/flyweight models pull
	@$(bin)/flyweight demo

test:
	@$(bootstrap) local,dev
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy
	$(bin)/codespell
	$(bin)/pytest -n 2 -m "not model and not slow"
	$(bin)/flyweight models pull
	$(bin)/pytest -m model
