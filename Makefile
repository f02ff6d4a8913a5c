# SPDX-License-Identifier: GPL-2.0
#
# Without KDIR everything runs in the lab's build root ("make lab"); with it, as
# on a real dom0 or inside that root, the module is built directly against it.

ENTER := tests/setup/enter
CARGO_LAB := cargo run --locked --quiet --release --manifest-path tests/Cargo.toml -p lab --

modules:

# What the module is built in, below build/.
OUT = $(or $(KERNEL),module)

# Another kernel than the stock one for dom0, see tests/kernels.
choose-kernel = $(if $(KERNEL),RBLKBACK_KERNEL=$$(tests/kernels/kernel '$(KERNEL)') && \
	export RBLKBACK_KERNEL &&)

help:
	@echo 'make              build/module/rblkback.ko, in the lab or against KDIR='
	@echo 'make test         everything, set-up included; T=name runs one scenario at length,'
	@echo '                  T="name name" several'
	@echo 'make test-all     everything at length: hours; PART=2/4 runs the second of four parts'
	@echo 'make soak         1,000 attachments and 1,000 reconnects, or CYCLES=N: half an hour'
	@echo 'make test-debug   the scenarios on a dom0 kernel that watches itself; takes T= too,'
	@echo '                  PLANT=lock|sleep|leak shows that it would find such a fault'
	@echo 'make demo         a guest under a changing limit; writes build/demo.png'
	@echo 'make bench        what requests cost dom0, beside xen-blkback; writes build/bench.png;'
	@echo '                  JOB=name runs one job'
	@echo 'make profile      where the instructions of a request go in dom0 and Xen, function by'
	@echo '                  function, for xen-blkback and rblkback; takes JOB=, also JOB=name@80us'
	@echo 'make fuzz         looks for inputs that break the pure code; T=target SECONDS=60,'
	@echo '                  INPUT=FILE runs one that was found'
	@echo 'make shell        a shell in the dom0 of a freshly booted host'
	@echo 'make lab          only the set-up; REFRESH=1 looks for newer packages'
	@echo 'make clippy rustfmt rustfmtcheck   the module'"'"'s lints and style'
	@echo 'make htmldocs     Documentation as build/html, with the Sphinx of this computer'
	@echo 'make deb          Debian packages and a repository of them, in build/deb'
	@echo 'make dist         tarball of the sources with its checksum, in build/dist'
	@echo 'make clean        removes build/; the lab stays'
	@echo
	@echo 'KERNEL=rt   another kernel for dom0, with any of these but test-debug: the PREEMPT_RT build'
	@echo '            of the stock one, or a release that the mirror has'
	@echo 'CYCLES=N    how often "make test" repeats what it repeats'
	@echo 'KDIR=DIR    kernel tree that scripts/prepare-kdir made'
	@echo 'MIRROR=URL  Debian mirror for the lab'
	@echo 'V=1         show commands'

lab:
	@MIRROR='$(MIRROR)' REFRESH='$(REFRESH)' tests/setup/lab

# What the test program is told, if not the target's own name.
TASK_test-all = test --at-length
TASK_soak = test --only cycles --only reconnect
soak: CYCLES = 1000

# What runs on the ordinary dom0 of tests/debian, and what tries the packages of "make deb". Both are
# made for those only, and both are of the stock kernel.
ON_DEBIAN = ordinary installed upgraded
OF_PACKAGES = packages installed upgraded kernels
needs = $(and $(filter test test-all,$@),$(if $(KERNEL),,yes),$(if $(T),$(filter $(1),$(T)),all))
# What "make test" leaves out needs more: packages of a next version, and a dom0 with several kernels.
needs-at-length = $(if $(T),$(call needs,$(1)),$(and $(call needs),$(filter test-all,$@)))
# logged NAME,COMMAND: runs it, and shows the end of its log only if it fails.
logged = { $(2) >build/$(1).log 2>&1 || { tail -n 40 build/$(1).log >&2; false; }; }
# A release for which DKMS builds as well, with Debian's compiler.
SECOND_KERNEL = 7.2.12+deb13-amd64
make-deb = $(ENTER) sh -c 'scripts/make-deb $(1) "$$KDIR"'

test test-all soak demo bench shell: lab
	@$(choose-kernel) $(ENTER) make -s modules dom0-test-modules OUT='$(OUT)' V='$(V)' && \
	RBLKBACK_KERNEL= $(ENTER) make -s test-modules V='$(V)' && \
	$(if $(call needs,$(OF_PACKAGES)),$(call logged,make-deb,$(make-deb)) &&) \
	$(if $(call needs-at-length,upgraded),$(call logged,make-deb-next,$(call \
		make-deb,--version $(VERSION)+next --output build/deb-next)) &&) \
	$(if $(call needs-at-length,kernels),second=$$(tests/kernels/kernel '$(SECOND_KERNEL)') && \
		$(call logged,make-deb-second,RBLKBACK_KERNEL=$$second $(call make-deb,--output build/deb-second)) && \
		RBLKBACK_KERNELS=$$(tests/debian/dom0 kernels) && export RBLKBACK_KERNELS &&) \
	$(if $(call needs,$(ON_DEBIAN)),RBLKBACK_DEBIAN=$$(tests/debian/dom0) && export RBLKBACK_DEBIAN && )\
	$(ENTER) $(CARGO_LAB) --module 'build/$(OUT)/rblkback.ko' \
		$(or $(TASK_$@),$@) $(foreach name,$(T),--only '$(name)') \
		$(if $(CYCLES),--cycles '$(CYCLES)') $(if $(PART),--part '$(PART)') $(if $(JOB),--job '$(JOB)')

# See tests/debug.
test-debug: lab
	@RBLKBACK_KERNEL=$$(tests/debug/kernel) && export RBLKBACK_KERNEL && \
	RBLKBACK_KERNEL= $(ENTER) make -s test-modules V='$(V)' && \
	$(if $(PLANT),tests/debug/planted '$(PLANT)', \
	$(ENTER) make -s modules dom0-test-modules OUT=debug V='$(V)' && \
	$(ENTER) $(CARGO_LAB) --module build/debug/rblkback.ko test $(foreach name,$(T),--only '$(name)'))

# See Documentation/profile.rst.
profile: lab
	@$(ENTER) make -s modules test-modules V='$(V)'
	@$(ENTER) $(CARGO_LAB) profile $(if $(JOB),--only '$(JOB)')

fuzz: lab
	@$(ENTER) $(CARGO_LAB) fuzz $(if $(T),--only '$(T)') \
		$(if $(SECONDS),--seconds '$(SECONDS)') $(if $(INPUT),--input '$(INPUT)')

# With KDIR= on any Debian 13, without the lab; see scripts/make-deb.
ifdef KDIR
deb:
	@scripts/make-deb '$(KDIR)'
else
deb: lab
	@$(ENTER) sh -c 'scripts/make-deb "$$KDIR"'
endif

# Of what is committed: a tarball is the same whoever makes it.
VERSION = $(shell cat VERSION)
dist:
	@mkdir -p build/dist
	git archive --format=tar --prefix='rblkback-$(VERSION)/' HEAD | \
		xz -9 -T1 >'build/dist/rblkback-$(VERSION).tar.xz'
	cd build/dist && sha256sum 'rblkback-$(VERSION).tar.xz' >SHA256SUMS && cat SHA256SUMS

# The lab has no Sphinx: this needs neither the lab nor root. Every warning is an error, and no
# page is left out because it has not changed: its warning would be lost.
SPHINXBUILD = sphinx-build
htmldocs:
	@command -v $(SPHINXBUILD) >/dev/null || { echo 'There is no $(SPHINXBUILD) here:' \
		'"apt install python3-sphinx" installs it' >&2; exit 1; }
	@$(SPHINXBUILD) -q -a -E -W --keep-going -b html -d build/doctrees Documentation build/html
	@echo build/html/index.html

clean:
	rm -rf build

ifdef KDIR

$(if $(wildcard $(KDIR)/include/config/kernel.release),,$(error KDIR=$(KDIR) is no \
	prepared kernel tree: scripts/prepare-kdir makes one))

# Kbuild says that, too, but not where.
$(if $(word 2,$(subst :, ,$(CURDIR))),$(error Kbuild works in no path with a blank or a colon: \
	move this checkout out of $(CURDIR)))

# The tree's own compilers: kernel and module have to agree in both.
CC := $(shell sed -n 's/^CONFIG_CC_VERSION_TEXT="\([^ ]*\).*/\1/p' $(KDIR)/.config)
RUSTC := $(or $(wildcard /usr/bin/rustc),rustc)
RUST_FILES = $(shell find src xenbus -name '*.rs' ! -name '*_generated.rs')

# Objects go below build/, the sources stay clean.
kbuild = +$(MAKE) -C $(KDIR) --no-print-directory M=$(CURDIR)$(3) MO=$(CURDIR)/build/$(1) \
	KERNELRELEASE=$(shell cat $(KDIR)/include/config/kernel.release) \
	CC=$(CC) RUSTC=$(RUSTC) $(2) modules

# What the debug kernel adds to a function is not the module's own.
check-frames = $(if $(filter debug,$(OUT)),,@scripts/check-frames build/$(OUT)/rblkback.ko)

modules:
	@mkdir -p build
	$(call kbuild,$(OUT))
	$(check-frames)

# What the tests load into a guest.
test-modules:
	@mkdir -p build
	$(call kbuild,granter,,/tests/frontend/granter)

# What they load into dom0, for the kernel of the module beside it.
dom0-test-modules:
	@mkdir -p build
	$(call kbuild,$(OUT)-holder,,/tests/holder)

# W=e: a warning is an error, of the C compiler as well.
clippy:
	@mkdir -p build
	$(call kbuild,clippy,CLIPPY=1 W=e)

rustfmt:
	rustfmt --edition 2021 $(RUST_FILES)

rustfmtcheck:
	rustfmt --edition 2021 --check $(RUST_FILES)

else

modules test-modules dom0-test-modules clippy rustfmt rustfmtcheck:
	@tests/setup/lab --print >/dev/null || { echo 'There is no kernel tree: "make lab" makes' \
		'one for the lab; on a real dom0 give KDIR=, see README.md' >&2; exit 1; }
	@$(choose-kernel) $(ENTER) make -s $@ OUT='$(OUT)' MAX_FRAME='$(MAX_FRAME)' V='$(V)'

endif

.PHONY: deb dist modules test-modules dom0-test-modules help lab test test-all soak demo bench profile shell fuzz test-debug htmldocs clean clippy rustfmt rustfmtcheck
