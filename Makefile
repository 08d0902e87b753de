# Builds, tests and measures spanloom. Everything made is below $(BUILD); V=1 shows the commands.
#   make            build/spanloom                sudo make check   every test
#   sudo make demo  a live tour                   sudo make bench   what tracing costs
#   sudo make deps  the packages (apt)            sudo make install PREFIX=/usr/local

BUILD ?= build
PREFIX ?= /usr/local
V ?= 0
FUZZ_SECONDS ?= 20
JOBS ?= 2

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DELETE_ON_ERROR:
.SECONDARY:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := all

ifeq ($(origin CC),default)
CC := gcc
endif
CLANG ?= clang
PROTOC_C ?= protoc-c
PYTHON ?= /usr/bin/python3
export BPFTOOL ?= $(shell tools/find-bpftool)

ifeq ($(V),0)
Q := @
say = @printf '  %-8s %s\n' '$(1)' '$(2)'
else
Q :=
say = @:
endif

# --- flags ------------------------------------------------------------------------------------------------------

WARNINGS := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wcast-qual \
	    -Wwrite-strings -Wundef -Wvla -Wformat=2 -Wimplicit-fallthrough
CFLAGS ?= -O2 -g
CPPFLAGS_ALL := -D_GNU_SOURCE -Isrc -Iinclude -isystem $(BUILD)/gen $(CPPFLAGS)
CFLAGS_ALL := -std=gnu11 $(WARNINGS) -fno-omit-frame-pointer $(CPPFLAGS_ALL)
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all
FUZZ_SANITIZE := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
LIBS_PURE := -lprotobuf-c -lm
LIBS_USER := -lcurl -lz -lelf -lcapstone $(LIBS_PURE)
LIBS_ALL := -lbpf $(LIBS_USER) -lpthread

ARCH := $(patsubst aarch64,arm64,$(patsubst x86_64,x86,$(shell uname -m)))
BPF_CFLAGS := -target bpf -g -O2 -mcpu=v3 -D__TARGET_ARCH_$(ARCH) -Wall -Wextra -Werror -Wshadow \
	      -Wno-unused-parameter -Wno-missing-declarations -Ibpf -Iinclude -idirafter /usr/include/$(shell uname -m)-linux-gnu

# --- sources: new files need no change here -----------------------------------------------------------------------

ALL_SRC := $(sort $(shell find src -name '*.c'))
PURE_SRC := $(filter src/base/% src/trace/% src/protocols/% src/export/otlp_encode%,$(ALL_SRC))
USER_SRC := $(filter-out $(PURE_SRC),$(filter src/config/% src/export/% src/discover/% src/runtimes/%,$(ALL_SRC)))
AGENT_SRC := $(filter-out $(PURE_SRC) $(USER_SRC) src/main.c,$(ALL_SRC))
BPF_SRC := $(sort $(wildcard bpf/*.bpf.c))
PROTOS := $(sort $(shell find proto -name '*.proto'))
PB_SRC := $(patsubst proto/%.proto,$(BUILD)/gen/%.pb-c.c,$(PROTOS))
SKELETON := $(BUILD)/gen/spanloom.skel.h

UNIT_SRC := $(sort $(wildcard tests/unit/test_*.c))
FUZZ_SRC := $(sort $(wildcard tests/fuzz/fuzz_*.c))
BPF_TEST_SRC := $(sort $(wildcard tests/bpf/test_*.c))
E2E_SRC := $(sort $(wildcard tests/e2e/*.c))
BENCH_SRC := $(sort $(wildcard tests/bench/*.c))

# Three builds of the same sources: obj (what is shipped), san (ASan + UBSan), fuz (clang's fuzzer).
objs = $(patsubst %.c,$(BUILD)/$(1)/%.o,$(2)) $(if $(3),$(patsubst $(BUILD)/gen/%.c,$(BUILD)/$(1)/gen/%.o,$(PB_SRC)))

UNIT_BIN := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(UNIT_SRC))
FUZZ_BIN := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(FUZZ_SRC))
BPF_TEST_BIN := $(patsubst tests/bpf/%.c,$(BUILD)/bpf-tests/%,$(BPF_TEST_SRC))
E2E_BIN := $(patsubst tests/e2e/%.c,$(BUILD)/e2e/%,$(E2E_SRC))
BENCH_BIN := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(BENCH_SRC))

.PHONY: all
all: $(BUILD)/spanloom $(if $(wildcard tools/replay.c),$(BUILD)/replay)

# --- generated ----------------------------------------------------------------------------------------------------

$(BUILD)/gen/%.pb-c.c $(BUILD)/gen/%.pb-c.h: proto/%.proto $(PROTOS)
	$(call say,PROTO,$<)
	@command -v $(PROTOC_C) >/dev/null || { echo "make: no $(PROTOC_C): 'sudo make deps' installs what the build needs" >&2; false; }
	$(Q)mkdir -p $(BUILD)/gen && $(PROTOC_C) -Iproto --c_out=$(BUILD)/gen $< \
		2> >(grep -v 'protoc-c. is deprecated' >&2) # protobuf-c 1.5; 1.4 has nothing else

define bpf_compile
	$(call say,BPF,$<)
	$(Q)mkdir -p $(@D) && $(CLANG) $(BPF_CFLAGS) -MMD -MP -c $< -o $@
endef
define bpf_skeleton
	$(call say,SKEL,$@)
	$(Q)mkdir -p $(@D) && $(BPFTOOL) gen skeleton $< name $(1) > $@
endef

$(BUILD)/bpf/%.bpf.o: bpf/%.bpf.c $(BUILD)/flags
	$(bpf_compile)

$(BUILD)/gen/spanloom.bpf.o: $(patsubst bpf/%.bpf.c,$(BUILD)/bpf/%.bpf.o,$(BPF_SRC))
	$(call say,BPFLINK,$@)
	$(Q)mkdir -p $(@D) && $(BPFTOOL) gen object $@ $^

$(SKELETON): $(BUILD)/gen/spanloom.bpf.o
	$(call bpf_skeleton,spanloom)

# Programs that only a test has.
BPF_TEST_SKEL := $(patsubst tests/bpf/%.bpf.c,$(BUILD)/gen/%.skel.h,$(wildcard tests/bpf/*.bpf.c))
$(BUILD)/bpf-tests/%.bpf.o: tests/bpf/%.bpf.c $(BUILD)/flags
	$(bpf_compile)

$(BPF_TEST_SKEL): $(BUILD)/gen/%.skel.h: $(BUILD)/bpf-tests/%.bpf.o
	$(call bpf_skeleton,$*)

# --- objects ------------------------------------------------------------------------------------------------------

# Changes when the compiler or its flags do, and everything is built anew then.
FLAGS_TEXT := $(CC) $(CLANG) $(CFLAGS) $(CFLAGS_ALL) $(LDFLAGS) $(BPF_CFLAGS)
$(BUILD)/flags: FORCE
	@mkdir -p $(@D); echo '$(FLAGS_TEXT)' | cmp -s - $@ || echo '$(FLAGS_TEXT)' > $@
.PHONY: FORCE

define compile_rules
$(BUILD)/$(1)/gen/%.o: $(BUILD)/gen/%.c $(BUILD)/flags
	$$(call say,CC,$$<)
	$(Q)mkdir -p $$(@D) && $(2) -std=gnu11 -w $(CFLAGS) $(3) $(CPPFLAGS_ALL) -MMD -MP -c $$< -o $$@

$(BUILD)/$(1)/%.o: %.c $(BUILD)/flags
	$$(call say,CC,$$<)
	$(Q)mkdir -p $$(@D) && $(2) $(CFLAGS_ALL) $(CFLAGS) $(3) -MMD -MP -c $$< -o $$@

# Generated headers are there before who includes them is compiled.
$$(call objs,$(1),$$(filter src/export/% tests/unit/test_otlp% tests/unit/test_export% tests/fuzz/%,\
	$$(ALL_SRC) $$(UNIT_SRC) $$(FUZZ_SRC)),): $$(PB_SRC:.c=.h)
$$(call objs,$(1),$$(filter src/probe/% tests/bpf/%,$$(ALL_SRC) $$(BPF_TEST_SRC)),): $(SKELETON)
$$(call objs,$(1),$$(BPF_TEST_SRC),): $(BPF_TEST_SKEL)
$$(patsubst %.c,$(BUILD)/$(1)/gen/%.o,$$(patsubst $(BUILD)/gen/%,%,$$(PB_SRC))): $$(PB_SRC:.c=.h)

$(BUILD)/$(1)/libpure.a: $$(call objs,$(1),$$(PURE_SRC),pb)
$(BUILD)/$(1)/libuser.a: $$(call objs,$(1),$$(USER_SRC),)
$(BUILD)/$(1)/libagent.a: $$(call objs,$(1),$$(AGENT_SRC),)
$(BUILD)/$(1)/%.a:
	$$(call say,AR,$$@)
	$(Q)mkdir -p $$(@D) && rm -f $$@ && ar rcs $$@ $$^
endef
$(eval $(call compile_rules,obj,$(CC),))
$(eval $(call compile_rules,san,$(CC),$(SANITIZE)))
$(eval $(call compile_rules,fuz,$(CLANG),$(FUZZ_SANITIZE)))

# base + trace + protocols + the OTLP encoder: no socket, clock or BPF call gets in here (tools/check_layers looks).
$(BUILD)/libpure.a: $(BUILD)/obj/libpure.a
	$(Q)cp $< $@

# --- programs -----------------------------------------------------------------------------------------------------

link = $(call say,LINK,$@)
$(BUILD)/spanloom: $(call objs,obj,$(ALL_SRC),pb)
	$(link)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $^ -o $@ $(LIBS_ALL)

$(BUILD)/replay: $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard tools/replay*.c)) $(BUILD)/libpure.a
	$(link)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $^ -o $@ $(LIBS_PURE)

# A unit test gets the pure library, and the rest of user space only when it includes something of it.
USER_TESTS := $(if $(UNIT_SRC),$(shell grep -lE '\#include "(config|discover|runtimes|export)/' $(UNIT_SRC) | \
	xargs -r grep -LE '\#include "export/otlp_encode'))
USER_TEST_BIN := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(USER_TESTS))
$(USER_TEST_BIN): $(BUILD)/unit/%: $(BUILD)/san/tests/unit/%.o $(BUILD)/san/libuser.a $(BUILD)/san/libpure.a
	$(link)
	$(Q)mkdir -p $(@D) && $(CC) $(SANITIZE) $(LDFLAGS) $^ -o $@ $(LIBS_USER)
$(filter-out $(USER_TEST_BIN),$(UNIT_BIN)): $(BUILD)/unit/%: $(BUILD)/san/tests/unit/%.o $(BUILD)/san/libpure.a
	$(link)
	$(Q)mkdir -p $(@D) && $(CC) $(SANITIZE) $(LDFLAGS) $^ -o $@ $(LIBS_PURE)

$(FUZZ_BIN): $(BUILD)/fuzz/%: $(BUILD)/fuz/tests/fuzz/%.o $(BUILD)/fuz/libpure.a
	$(link)
	$(Q)mkdir -p $(@D) && $(CLANG) -fsanitize=fuzzer,address,undefined $(LDFLAGS) $^ -o $@ $(LIBS_PURE)

$(E2E_BIN): $(BUILD)/e2e/%: $(BUILD)/san/tests/e2e/%.o $(BUILD)/san/libuser.a $(BUILD)/san/libpure.a
	$(link)
	$(Q)mkdir -p $(@D) && $(CC) $(SANITIZE) $(LDFLAGS) $^ -o $@ $(LIBS_USER)

$(BPF_TEST_BIN): $(BUILD)/bpf-tests/%: $(BUILD)/obj/tests/bpf/%.o $(BUILD)/obj/libagent.a $(BUILD)/obj/libuser.a \
		$(BUILD)/obj/libpure.a
	$(link)
	$(Q)mkdir -p $(@D) && $(CC) $(LDFLAGS) $^ -o $@ $(LIBS_ALL)

$(BENCH_BIN): $(BUILD)/bench/%: $(BUILD)/obj/tests/bench/%.o
	$(link)
	$(Q)mkdir -p $(@D) && $(CC) $(LDFLAGS) $^ -o $@ -lpthread

# --- packages and Python --------------------------------------------------------------------------------------------

.PHONY: deps venv
deps:
	tools/install-deps

venv: $(BUILD)/venv/ready
$(BUILD)/venv/ready: tests/requirements.txt tests/requirements-apps.txt
	$(call say,VENV,$(BUILD)/venv)
	$(Q)rm -rf $(BUILD)/venv && $(PYTHON) -m venv $(BUILD)/venv && \
		$(BUILD)/venv/bin/pip install -q --disable-pip-version-check -r $< && touch $@

# --- tests ----------------------------------------------------------------------------------------------------------

RUN_TESTS := $(PYTHON) tools/run_tests --results $(BUILD)/results
SUITES := lint unit golden bpf fuzz-short e2e
.PHONY: check check-suites tests $(SUITES) fuzz

tests: $(UNIT_BIN) $(FUZZ_BIN) $(E2E_BIN) $(BPF_TEST_BIN) $(BENCH_BIN)

unit: $(UNIT_BIN)
	@$(RUN_TESTS) unit $(foreach t,$(UNIT_BIN),'$(notdir $t)=$t')

golden: $(BUILD)/replay
	@$(RUN_TESTS) golden $(foreach f,$(sort $(wildcard tests/golden/*.txt)),\
		'$(basename $(notdir $f))=$(BUILD)/replay --golden $f' \
		'$(basename $(notdir $f)) (every split)=$(BUILD)/replay --golden --split $f')

bpf: $(BPF_TEST_BIN)
	@$(RUN_TESTS) bpf $(foreach t,$(BPF_TEST_BIN),'$(notdir $t)=$t')

e2e: $(BUILD)/spanloom $(E2E_BIN) $(BUILD)/venv/ready
	@SPANLOOM_BUILD=$(abspath $(BUILD)) $(RUN_TESTS) --stream e2e \
		'pytest=$(BUILD)/venv/bin/python -m pytest -q --color=no -p no:cacheprovider tests/e2e $(E2E_ARGS)'

define run_fuzzers
	@mkdir -p $(BUILD)/fuzz/work
	@$(RUN_TESTS) $(1) $(foreach t,$(FUZZ_BIN),'$(notdir $t)=cd $(BUILD)/fuzz/work && mkdir -p $(notdir $t) && \
		$(abspath $t) -max_total_time=$(2) -timeout=10 -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1 $(notdir $t) \
		$(wildcard $(abspath tests/fuzz/corpus/$(patsubst fuzz_%,%,$(notdir $t)) tests/fuzz/corpus/$(notdir $t)))')
endef
fuzz-short: $(FUZZ_BIN)
	$(call run_fuzzers,fuzz-short,$(FUZZ_SECONDS))
fuzz: FUZZ_SECONDS := 600
fuzz: $(FUZZ_BIN)
	$(call run_fuzzers,fuzz,$(FUZZ_SECONDS))

# Root is needed for bpf and e2e; every suite runs even when one before it fails; the last line sums them up.
check:
	@tools/install-deps --missing
	@rm -rf $(BUILD)/results
	+@$(MAKE) --no-print-directory -k -j$(JOBS) all tests venv || true
	+@for suite in $(SUITES); do $(MAKE) --no-print-directory -j$(JOBS) $$suite || true; done
	@$(RUN_TESTS) --total $(SUITES)

# --- lint -----------------------------------------------------------------------------------------------------------

OUR_C := $(sort $(shell find src include bpf tools tests -name '*.[ch]'))
TIDY_SRC := $(ALL_SRC) $(wildcard tools/*.c)
TIDY := $(patsubst %.c,$(BUILD)/lint/%.tidy,$(TIDY_SRC))
SCRIPTS := $(shell grep -lE '^.!/usr/bin/env bash|^.!/bin/(ba)?sh' tools/* .ci/run tests/*/* 2>/dev/null)

$(BUILD)/lint/%.tidy: %.c .clang-tidy $(BUILD)/obj/%.o
	$(call say,TIDY,$<)
	$(Q)mkdir -p $(@D) && clang-tidy --quiet --warnings-as-errors='*' $(TIDY_CHECKS) $< -- -std=gnu11 $(CPPFLAGS_ALL) \
		2> >(grep -vE '^[0-9]+ warnings? (generated|treated)|^Suppressed|^Use -' >&2) && touch $@

# bpftool's skeleton is analysed with who includes it, and its own "leak" is there on purpose.
$(BUILD)/lint/src/probe/%.tidy: TIDY_CHECKS := --checks=-clang-analyzer-unix.Malloc

.PHONY: tidy
tidy: $(TIDY)

# Every version of clang-format has a taste of its own: the one of requirements.txt decides.
lint: $(BUILD)/spanloom $(BUILD)/venv/ready
	+@$(RUN_TESTS) lint \
		'clang-format=$(BUILD)/venv/bin/clang-format --dry-run -Werror $(OUR_C)' \
		'layers=BUILD=$(BUILD) tools/check_layers' \
		'readme=BUILD=$(BUILD) tools/check_readme' \
		'cppcheck=cppcheck -q -j$(JOBS) --error-exitcode=1 --std=c11 --enable=warning,portability --inline-suppr \
			--suppress=missingIncludeSystem --suppress=unknownMacro \
			--suppress=normalCheckLevelMaxBranches -D_GNU_SOURCE -Isrc -Iinclude src tools' \
		'clang-tidy=$(MAKE) --no-print-directory -k -j$(JOBS) tidy' \
		$(if $(shell command -v shellcheck),'shellcheck=shellcheck $(SCRIPTS)')

# --- for people -----------------------------------------------------------------------------------------------------

.PHONY: demo bench install clean
demo:
	@tools/install-deps --missing demo
	+@$(MAKE) --no-print-directory -j$(JOBS) $(BUILD)/spanloom $(BUILD)/venv/ready
	@SPANLOOM_BUILD=$(abspath $(BUILD)) $(BUILD)/venv/bin/python tools/demo

bench:
	@tools/install-deps --missing
	+@$(MAKE) --no-print-directory -j$(JOBS) $(BUILD)/spanloom $(BENCH_BIN) $(BUILD)/venv/ready
	@SPANLOOM_BUILD=$(abspath $(BUILD)) $(BUILD)/venv/bin/python tests/bench/run.py

install: $(BUILD)/spanloom
	install -D -m 755 $(BUILD)/spanloom $(DESTDIR)$(PREFIX)/bin/spanloom

clean:
	rm -rf $(BUILD)

ifeq ($(filter clean deps,$(MAKECMDGOALS)),)
-include $(shell [ -d $(BUILD) ] && find $(BUILD) -name '*.d' -not -path '*/venv/*')
endif
