# `make demo` shows the whole cycle in one directory; `make test` runs everything. Both set up what they need.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
RUN := PATH="$(BIN):$$PATH" ANSIBLE_CONFIG="$(CURDIR)/ansible.cfg"
ARTIFACTS := build/artifacts
INSTALLED := $(CURDIR)/build/installed
MOLECULE = env PATH="$(BIN):$$PATH" MOLECULE_GLOB='molecule/$(1)/molecule.yml' BLUEGREEN_TEST_ARTIFACTS="$(CURDIR)/$(ARTIFACTS)" \
  BLUEGREEN_TEST_COLLECTIONS="$(INSTALLED)" $(BIN)/molecule $(2) $(or $(DO),test) -s $(1)
REPOSITORY := https://github.com/beamops/bluegreen

.PHONY: help venv demo demo-stop demo-picture artifacts test test-faults test-long test-traffic test-walk test-vagrant bench bench-scale bench-watch mutants lint sanity units galaxy docs reference release image ready molecule matrix collection clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

venv: $(VENV)/.done ## Make the virtual environment, with the collection in it
$(VENV)/.done: requirements-dev.txt
	@scripts/need python-venv
	@echo "Making $(VENV) (once)"
	@python3 -m venv $(VENV)
	@# Python compiles what is imported, which is a small part of all that comes along.
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -r requirements-dev.txt 2>&1 | grep -v '^WARNING' || true
	@$(BIN)/ansible --version >/dev/null
	@mkdir -p $(VENV)/collections/ansible_collections/beamops
	@ln -sfn "$(CURDIR)" $(VENV)/collections/ansible_collections/beamops/bluegreen
	@touch $@

artifacts: ## Build the sample releases
	@scripts/need mix erlc pgsql.beam
	@tests/sample_app/build $(ARTIFACTS)

demo: venv ## The main job in one directory: deploy, promote, roll back, while requests flow
	@scripts/need nginx mix erlc curl
	@tests/sample_app/build $(ARTIFACTS)
	@$(RUN) python demo/demo.py

demo-stop: ## End the demo, and leave nothing behind
	@$(RUN) python demo/demo.py --stop

demo-picture: venv ## Run the demo, and make docs/demo.svg of what it prints
	@$(RUN) python demo/picture.py

test: ## Everything: lint, sanity, units, molecule on containers
	@scripts/test

lint: venv ## ansible-lint (production), yamllint, ruff, mypy, proselint
	@$(RUN) ruff check .
	@$(RUN) MYPYPATH="$(CURDIR)/$(VENV)/collections" mypy -p ansible_collections.beamops.bluegreen.plugins
	@$(RUN) yamllint --strict .
	@$(RUN) ansible-lint --offline --profile production
	@$(RUN) check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(RUN) proselint check --config .proselint.json README.md SECURITY.md CONTRIBUTING.md docs/*.md docs/how-to/*.md

sanity: venv ## ansible-test sanity
	@$(RUN) tests/sanity

units: venv ## Unit and property tests, the site in real nginxes, and the page of status.yml in a browser
	@scripts/need nginx openssl chromium
	@$(RUN) pytest -q tests/unit

reference: venv ## Write docs/variables.md and docs/playbooks.md from the sources
	@$(RUN) python docs/reference.py

galaxy: collection ## What Galaxy checks of a collection that is published
	@cd build/tarball && { $(RUN) python -m galaxy_importer.main *.tar.gz >../galaxy.log 2>&1 || { tail -n 20 ../galaxy.log; exit 1; }; }
	@! grep -E '^(WARNING|ERROR)' build/galaxy.log

docs: collection ## The documentation site, in build/docs/html
	@rm -rf build/docs && mkdir -p -m 755 build/docs/source/how-to && cp -r docs/*.svg docs/conf.py docs/static build/docs/source/
	@for page in docs/*.md; do sed -E 's#(\]\(|\]: )\.\./#\1$(REPOSITORY)/blob/main/#' $$page >build/docs/source/$${page#docs/}; done
	@cp docs/how-to/*.md build/docs/source/how-to/
	@ANSIBLE_COLLECTIONS_PATH=$(INSTALLED) $(RUN) antsibull-docs collection --use-current --fail-on-error \
	  --dest-dir build/docs/source beamops.bluegreen >build/docs/antsibull.log || { cat build/docs/antsibull.log; exit 1; }
	@$(RUN) sphinx-build -q -W --keep-going -b html build/docs/source build/docs/html
	@echo "build/docs/html/index.html"

collection: venv ## Build the tarball, and install it below build/installed
	@rm -rf build/tarball $(INSTALLED) && mkdir -p build/tarball
	@$(RUN) ansible-galaxy collection build --output-path build/tarball . >/dev/null
	@$(RUN) ANSIBLE_COLLECTIONS_PATH=$(INSTALLED) ansible-galaxy collection install --offline --force -p $(INSTALLED) build/tarball/*.tar.gz >/dev/null

release: venv ## Make the changelog, the tarball and its SHA-256 in build/release, and check them
	@$(RUN) scripts/release

image: ## A Docker engine, and the image of the test hosts
	@scripts/need docker dockerd mmdebstrap ssh
	@scripts/dockerd
	@tests/image/build build/image

ready: venv artifacts collection image ## What molecule needs: artifacts, the installed collection, a Docker engine, the image

molecule: $(if $(READY),,ready) ## The cycle on real containers; SCENARIO=default for one
	@image=$$(tests/image/build build/image) && cd "$(CURDIR)" && \
	  BLUEGREEN_TEST_IMAGE="$$image" BLUEGREEN_TEST_KEY="$(CURDIR)/build/image/id_ed25519" $(call MOLECULE,$(or $(SCENARIO),default),-c molecule/common.yml)

test-vagrant: venv artifacts collection ## The cycle on a real virtual machine; ten minutes where it has to be emulated
	@scripts/need vagrant libvirtd virsh qemu-system-x86_64 qemu-img dnsmasq tini mmdebstrap fakeroot grub-mkimage sfdisk ssh
	@scripts/libvirtd
	@export VAGRANT_HOME="$(CURDIR)/build/vagrant/home" VAGRANT_DOTFILE_PATH="$(CURDIR)/build/vagrant/machine" && \
	  box=$$(tests/image/box build/vagrant) && \
	  VAGRANT_DEFAULT_PROVIDER=libvirt BLUEGREEN_BOX="$$box" $(call MOLECULE,vagrant)

test-faults: export BLUEGREEN_FAULTS_EVERY = 1
test-faults: export BLUEGREEN_CLUSTER_SWITCHES = 20
test-faults: export PYTEST_ADDOPTS = -m faults
test-faults: ## Kills, cuts and floods, all of them (make test takes a sample); about half an hour
	@$(MAKE) --no-print-directory molecule SCENARIO=fleet

test-long: export PYTEST_ADDOPTS = -m long
test-long: ready ## What make test leaves out: other ways to the same promises, rare faults, slow features; two hours
	@for name in default fleet database https world; do $(MAKE) --no-print-directory molecule READY=1 SCENARIO=$$name || exit 1; done

test-traffic: export BLUEGREEN_TRAFFIC = full
test-traffic: export PYTEST_ADDOPTS = -s -m traffic
test-traffic: ## 60 switches and 20 deploys under load, beside a symlink with a reload (make test takes a short form)
	@$(MAKE) --no-print-directory molecule SCENARIO=default

test-walk: export BLUEGREEN_WALK_SEED = $(SEED)
test-walk: export BLUEGREEN_WALK_STEPS = $(or $(STEPS),100)
test-walk: export PYTEST_ADDOPTS = -s -m walk
test-walk: ## A random walk over all operations, with random faults: SEED=7 STEPS=200; ten seconds a step
	@$(MAKE) --no-print-directory molecule SCENARIO=fleet

bench: ready ## How long things take, beside typing them by hand; 40 minutes, prints ratios, writes docs/performance.md
	@scripts/need curl wrk
	@image=$$(tests/image/build build/image) && env PATH="$(BIN):$$PATH" \
	  BLUEGREEN_TEST_IMAGE="$$image" BLUEGREEN_TEST_KEY="$(CURDIR)/build/image/id_ed25519" \
	  BLUEGREEN_TEST_COLLECTIONS="$(INSTALLED)" $(BIN)/python tests/bench/bench.py

bench-scale: ready ## What 10, 30 and 100 hosts cost the controller; writes docs/performance.md
	@scripts/need ip nginx
	@env PATH="$(BIN):$$PATH" BLUEGREEN_TEST_COLLECTIONS="$(INSTALLED)" $(BIN)/python tests/bench/scale.py

bench-watch: ready ## Promotes bad and fine releases under load, 20 and 50 times each, and counts what the watch makes of them; an hour, TIMES=4
	@image=$$(tests/image/build build/image) && env PATH="$(BIN):$$PATH" \
	  BLUEGREEN_TEST_IMAGE="$$image" BLUEGREEN_TEST_KEY="$(CURDIR)/build/image/id_ed25519" \
	  BLUEGREEN_TEST_COLLECTIONS="$(INSTALLED)" $(BIN)/python tests/bench/watch.py

mutants: ready ## Takes the collection apart piece by piece, and looks which tests notice; hours, goes on where it was: MUTANTS=roles/slot HOURS=2
	@image=$$(tests/image/build build/image) && env PATH="$(BIN):$$PATH" BLUEGREEN_TEST_IMAGE="$$image" \
	  BLUEGREEN_TEST_KEY="$(CURDIR)/build/image/id_ed25519" BLUEGREEN_TEST_ARTIFACTS="$(CURDIR)/$(ARTIFACTS)" \
	  MUTANTS="$(MUTANTS)" SEED="$(SEED)" HOURS="$(HOURS)" $(BIN)/python tests/mutants/mutants.py

matrix: ready ## The cycle with other versions of ansible-core, Python and Debian; ten minutes, writes docs/compatibility.md
	@env PATH="$(BIN):$$PATH" BLUEGREEN_TEST_KEY="$(CURDIR)/build/image/id_ed25519" \
	  BLUEGREEN_TEST_COLLECTIONS="$(INSTALLED)" $(BIN)/python tests/matrix/matrix.py

clean: ## Remove what was built
	@rm -rf build
