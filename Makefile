# make lab                      open the course in JupyterLab
# make test                     run every test and every notebook
# make notebooks                run all notebooks afresh and store their outputs
# make notebooks NB=notebooks/01_response_knowledge.ipynb      the same for one of them
# make site                     build the course as web pages, docs/_build/html, from the stored outputs
# make bench                    measure speed and memory
# make mutants                  run all notebooks under all faults (hours): which claims notice?
# make mutants NB=notebooks/01_response_knowledge.ipynb        the same for one of them
#
# Each of them makes the environment .venv and installs what it needs, once.
# Another Python than python3: make lab PYTHON=python3.12

PYTHON = python3
NB = notebooks/*.ipynb

help:
	@sed -n 's/^# \{0,1\}//p' Makefile

lab: .venv/lab.stamp
	@echo "Opening JupyterLab on the notebooks. Ctrl-C here stops it."
	@allow_root=; [ "$$(id -u)" != 0 ] || allow_root=--allow-root; \
	.venv/bin/python -m jupyterlab --LabApp.default_url=/lab/tree/notebooks $$allow_root

test: .venv/test.stamp
	@sh tools/install_chromium.sh
	@echo "Running all tests and all notebooks."
	@.venv/bin/python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=600

notebooks: .venv/test.stamp
	@.venv/bin/python tools/store_notebooks.py $(NB)

mutants: .venv/test.stamp
	@.venv/bin/python tests/mutants.py $(NB)

site: .venv/site.stamp
	@.venv/bin/python docs/build.py

bench: .venv/test.stamp
	@.venv/bin/python benchmarks/run.py

.venv/lab.stamp: requirements.txt pyproject.toml
	@sh tools/install.sh "$(PYTHON)" -r requirements.txt
	@touch $@

.venv/test.stamp: .venv/lab.stamp
	@sh tools/install.sh "$(PYTHON)" -e ".[docs,int8,test,text]"
	@touch $@

.venv/site.stamp: .venv/lab.stamp
	@sh tools/install.sh "$(PYTHON)" -e ".[docs]"
	@touch $@

.PHONY: help lab test notebooks site mutants bench
