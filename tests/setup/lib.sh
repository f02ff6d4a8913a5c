# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the lab's scripts share: where things are, and how they speak.

# shellcheck disable=SC2034 # used by the scripts that source this file
SETUP=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TOP=$(cd "$SETUP/../.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/rblkback

say() { echo "lab: $*" >&2; }
die() { echo "lab: error: $*" >&2; exit 1; }

# Hash of everything that decides what a lab contains, versions aside.
recipe_key() {
	(cd "$TOP" && find tests/setup scripts/prepare-kdir -type f ! -name enter -print0 |
		LC_ALL=C sort -z | xargs -0 sha256sum) | sha256sum | cut -c1-10
}

# The newest finished lab of this recipe; fails when there is none. lab.env is
# the last file written into a lab. Asking the mirror for newer versions takes
# longer than a warm start may, and would make every run depend on the network,
# so only "make lab REFRESH=1" does that; a newer lab then has a newer lab.env.
# RBLKBACK_LAB=DIR names a lab to use whatever the recipe says.
find_lab() {
	local env
	if [ -n "${RBLKBACK_LAB:-}" ]; then
		[ -e "$RBLKBACK_LAB/lab.env" ] && echo "$RBLKBACK_LAB"
		return
	fi
	env=$(ls -1t "$CACHE/$(recipe_key)"-*/lab.env 2>/dev/null | head -n1)
	[ -n "$env" ] && dirname "$env"
}

# contain CMD...: runs CMD in mount and pid namespaces of its own, so that no
# mount leaks and nothing that CMD started outlives it or this shell, whoever
# is interrupted. Ctrl-C reaches CMD itself: it is in the same process group.
contain() {
	setpriv --pdeathsig KILL \
		unshare --mount --propagation private --pid --fork --kill-child --mount-proc \
		env --default-signal=INT,QUIT "$@" <&0 &
	local child=$! status
	trap ':' INT
	# shellcheck disable=SC2064 # the child of now
	trap "kill -KILL $child 2>/dev/null" TERM HUP EXIT
	# A trap interrupts wait. What bash says about a killed child is no news.
	while wait "$child"; status=$?; kill -0 "$child" 2>/dev/null; do :; done 2>/dev/null
	trap - INT TERM HUP EXIT
	return "$status"
}
