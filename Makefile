# make explore   install and open the dashboard on the trained weights that ship
# make test      install and run every test
# make explore-public ORIGIN=host   serve the dashboard to strangers behind a proxy, see docs/public.md
PYTHON ?= python3
PORT ?= 5006
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install explore explore-public docs test lint fuzz chaos weights adaptations evolutions ensembles darcy bench bench-page release-check clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit('sciml-fm needs Python 3.11 or newer, this is ' + sys.version.split()[0]) if sys.version_info < (3, 11) else None"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

explore: install
	$(BIN)/sciml-fm explore --port $(PORT)

# For strangers, behind a proxy that browsers know as ORIGIN: make explore-public ORIGIN=operators.example.org; PREFIX is a
# path below which the pages are. See docs/public.md.
explore-public: install
	$(BIN)/sciml-fm explore --public --port $(PORT) $(ORIGIN:%=--origin %) $(PREFIX:%=--prefix %)

# As many tests at a time as there are cores; plain pytest runs them one by one.
test: lint
	$(BIN)/python -m pytest --numprocesses auto

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Thousands of damaged files and bad calls, see docs/reliability.md; about half an hour on two cores.
fuzz: install
	$(BIN)/python -m tests.attack --cases 5000 --processes 2

# Commands killed, started twice, and without room on the disk, see docs/reliability.md; KILLS, PAIRS and DISKS
# say how many.
KILLS ?= 5
PAIRS ?= 5
DISKS ?= 5

chaos: install
	$(BIN)/python tests/attack/chaos.py --kills $(KILLS) --pairs $(PAIRS) --disks $(DISKS)

# The documentation as a site in build/docs, with the notebooks executed on the records that ship; a wrong link fails.
docs: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -c docs . build/docs

# The small Darcy set of neuraloperator (MIT licence, 4 MB), into build/darcy: only this wheel has it.
darcy: install
	$(BIN)/python -m pip download --quiet --no-deps --dest build/darcy neuraloperator==0.3.0
	$(BIN)/python -m zipfile -e build/darcy/neuraloperator-0.3.0-py3-none-any.whl build/darcy/wheel
	mv build/darcy/wheel/neuralop/datasets/data/*.pt build/darcy/wheel/neuraloperator-0.3.0.dist-info/LICENSE build/darcy
	rm -r build/darcy/wheel build/darcy/*.whl

# Speed, side by side with neuraloperator and, with RELEASED=path of a checkout of the paper's code, with that.
bench: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt '.[bench]'
	$(BIN)/python benchmarks/run.py $(if $(RELEASED),--released $(RELEASED))
	$(BIN)/python benchmarks/report.py

# How fast the explore page answers in a real browser; a quiet machine, please. About eight minutes.
bench-page: install
	$(BIN)/python benchmarks/page.py

# The wheel and the sdist in fresh environments of their own, see docs/release.md; about ten minutes.
release-check: install
	SCIML_FM_FRESH=1 $(BIN)/python -m pytest tests/test_package.py

# Retrain the operators that ship, with the commands on their cards; about four hours on two cores. Each resumes
# from its checkpoint. A 32 x 32 grid resolves these solutions, so most steps are taken there, at a quarter of the cost; the
# last ones, at 64 x 64, unlearn the aliasing of its GELUs, and the operators then carry over to any finer grid unchanged.
OPERATORS := symbol sys-1-symbol sys-1 sys-2 sys-3 mixed sys-1-paper sys-4 sys-5

# They ship in float16, which changes their errors by less than 0.5 %; those of `symbol` it would change by 5 %. `sys-5` ships
# packed, which changes its error by 3 %.
weights: $(OPERATORS:%=runs/weights/%.safetensors)
	$(BIN)/python -c "import sys; from sciml_fm_core import load_operator; \
	[load_operator(f'runs/weights/{name}.safetensors').save(f'sciml_fm_core/weights/{name}.safetensors', \
	half=name != 'symbol', packed=name == 'sys-5') \
	for name in sys.argv[1:]]" $(OPERATORS)

runs/weights/%.safetensors: | install
	mkdir -p runs/weights
	$(BIN)/sciml-fm pretrain --resolution 0:32,0.85:64 --output $@ --checkpoint runs/weights/$*.checkpoint $(RECIPE_$*)

RECIPE_symbol := "SYS-1(1,5)" "SYS-2(0.2,1)" "SYS-3(1,10)" --recipe symbol --steps 24000 --resolution 0:32,0.9:64
RECIPE_sys-1-symbol := "SYS-1(1,5)" --recipe symbol --steps 8000 --resolution 0:32,0.9:64
RECIPE_sys-1 := "SYS-1(1,5)" --steps 8000
RECIPE_sys-2 := "SYS-2(0.2,1)" --steps 12000
RECIPE_sys-3 := "SYS-3(1,10)" --steps 12000 --resolution 0:32,0.7:64
RECIPE_mixed := "SYS-1(1,5)" "SYS-2(0.2,1)" "SYS-3(1,10)" --steps 24000 --batch-size 36 --resolution 0:32,0.75:64
RECIPE_sys-4 := "SYS-4(0,0.3)" $(CORRECTION) --steps 3400
RECIPE_sys-5 := "SYS-5(0.2,1)" $(CORRECTION) --steps 2400
CORRECTION = --recipe correction --start symbol --resolution 0:32,0.9:64 --validation-count 64 --test-resolution 64
RECIPE_sys-1-paper := "SYS-1(1,5)" --recipe paper --batch-size 32 --steps 8000

# Fine-tune what the explore page shows at once, and train its twins from scratch; about an hour on one core.
ADAPT := --grid --batch-size 32 --resolution 0:32,0.9:64 --packed
ADAPT_FIELDS := --batch-size 16 --resolution 0:32,0.9:64 --packed --test-count 512 --test-resolution 64

adaptations: install
	mkdir -p runs/adapted
	set -e; for task in 'sys-1 SYS-1(8,12)' 'sys-2 SYS-2(1,2)' 'sys-3 SYS-3(11,12)'; do \
	    for size in '8 100' '32 200' '512 600'; do for how in '' --scratch; do set -- $$task $$size; \
	    $(BIN)/sciml-fm adapt $$1 "$$2" --examples $$3 --steps $$4 $(ADAPT) $$how \
	        --output runs/adapted/$$1-$$3$${how#-}.safetensors; done; done; done
	set -e; for one in 'sys-4 SYS-4(0.6,0.9) 8 100' 'sys-4 SYS-4(0.6,0.9) 64 300'; do set -- $$one; \
	    $(BIN)/sciml-fm adapt $$1 "$$2" --examples $$3 --steps $$4 $(ADAPT_FIELDS) \
	        --output runs/adapted/$$1-$$3.safetensors; done
	cp runs/adapted/*.safetensors sciml_fm_core/weights/adapted/

# One operator for the evolutions of one field and one for Gray-Scott, and fine-tunings; an hour and a half on one core.
evolutions: install
	mkdir -p runs/weights runs/adapted
	set -e; for one in 'scalar evolutions' 'gray-scott gray-scott'; do set -- $$one; \
	    $(BIN)/python benchmarks/evolutions.py $$1 runs/weights; \
	    cp runs/weights/$$2.safetensors sciml_fm_core/weights/; \
	    $(BIN)/python benchmarks/evolutions.py $$1-tunings runs/adapted; done
	cp runs/adapted/evolutions-*.safetensors runs/adapted/gray-scott-*.safetensors sciml_fm_core/weights/adapted/

# Four small operators for each of the paper's systems, which differ in their seeds alone; about forty minutes on one core.
ensembles: install
	mkdir -p runs/ensembles sciml_fm_core/weights/ensembles
	set -e; for one in 'sys-1 SYS-1(1,5) 2000' 'sys-2 SYS-2(0.2,1) 3000' 'sys-3 SYS-3(1,10) 3000'; do set -- $$one; \
	    for seed in 0 1 2 3; do $(BIN)/sciml-fm pretrain "$$2" --size 256K --steps $$3 --seed $$seed \
	        --resolution 0:32,0.9:64 --output runs/ensembles/$$1-$$seed.safetensors \
	        --checkpoint runs/ensembles/$$1-$$seed.checkpoint; done; \
	    $(BIN)/python -c "import sys; from sciml_fm_core import load_operator; \
	from sciml_fm_core.experiments.uncertainty.ensemble import ensemble_of; name = sys.argv[1]; \
	members = [load_operator(f'runs/ensembles/{name}-{seed}.safetensors') for seed in range(4)]; \
	ensemble_of(members, command='make ensembles').save(f'sciml_fm_core/weights/ensembles/{name}.safetensors', packed=True)" \
	    $$1; done

clean:
	rm -rf .venv build dist *.egg-info
