#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Makes the Rust bindings of the Xen headers and of our C helpers.
# Usage: bindgen.sh KERNEL_CMD_FILE SOURCE_DIR OUTPUT
#
# KERNEL_CMD_FILE is the command that the kernel tree used for its own bindings;
# its flags are taken over word by word, so that both see the same layouts.
set -eu

cmd_file=$1 source=$2 output=$3
tree=$(dirname "$cmd_file")/../..

# `savedcmd_… := bindgen HEADER OPTIONS -o OUTPUT -- CLANG_FLAGS`: the options
# and the flags are quoted for a shell and `$(pound)` for make.
saved=$(sed -n 's/^savedcmd_[^ ]* := //p' "$cmd_file" | sed 's/\$(pound)/#/g')
[ -n "$saved" ] || { echo "bindgen.sh: no command in $cmd_file" >&2; exit 1; }
clang_flags=${saved##* -- }
clang_flags=${clang_flags%% ; sed *}
clang_flags=$(printf '%s' "$clang_flags" | sed 's/-Wp,-MMD,[^ ]*//')
bindgen_options=$(printf '%s' "${saved%% -- *}" |
	sed 's/^[^ ]* [^ ]* //; s/ -o [^ ]*$//')

case $output in /*) ;; *) output=$PWD/$output ;; esac
case $source in /*) ;; *) source=$(cd "$source" && pwd) ;; esac
cd "$tree"
eval "exec \"\${BINDGEN:-bindgen}\" \"\$source/xenbus/bindings.h\" $bindgen_options \
	--allowlist-file '.*/include/xen/.*' \
	--allowlist-file '.*/helpers\\.h' \
	--blocklist-function bind_ipi_to_irqhandler \
	--blocklist-function xen_send_IPI_one \
	--no-recursive-allowlist \
	--raw-line 'pub use kernel::bindings::*; use kernel::ffi;' \
	--raw-line 'use pin_init::MaybeZeroable;' \
	-o \"\$output\" -- $clang_flags -I\"\$source\""
