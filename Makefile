# nightforge's two commands are `make search` and `make test`; each sets up what it needs in .venv first.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
NATIVE := $(wildcard baseline/native/*.cpp baseline/native/*.h) baseline/native/CMakeLists.txt

.PHONY: search test clean

search: $(READY)
	@$(BIN)/nightforge search $(ARGS)

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

$(READY): pyproject.toml $(NATIVE)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v < (3, 14) and f"nightforge needs Python 3.11, 3.12 or 3.13; $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.12")'
	@echo 'int main() {}' | $${CXX:-c++} -std=c++20 -x c++ - -o /dev/null 2>/dev/null || \
	  { echo "nightforge needs a C++20 compiler (g++ or clang++): $${CXX:-c++} is none; name one with CXX=" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist
