# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Functions that every dom0 shell of the lab gets. To wait, they block in one
# process until the kernel or xenstored has something to tell.

# lab_wait NODE REGEX SECONDS: until the node's value matches; "absent" is the
# value of a node that does not exist. Prints the value; fails at the limit.
lab_wait() {
	local node=$1 pattern=$2 limit=$3 value found=1
	value=$(xenstore-read "$node" 2>/dev/null) || value=absent
	[[ $value =~ $pattern ]] && echo "$value" && return
	coproc WATCH { exec xenstore-watch "$node"; }
	# A watch fires once when it is set, so nothing is missed.
	while read -r -t "$limit" _ <&"${WATCH[0]}"; do
		value=$(xenstore-read "$node" 2>/dev/null) || value=absent
		[[ $value =~ $pattern ]] && found=0 && break
	done
	# KILL: of TERM one was seen to do nothing, and nothing is lost.
	# shellcheck disable=SC2153 # coproc sets it
	[ -z "${WATCH_PID:-}" ] || { kill -KILL "$WATCH_PID" && wait "$WATCH_PID"; } 2>/dev/null
	echo "$value"
	return "$found"
}

# lab_rest SECONDS: this shell does nothing for so long, and starts no process for that.
exec {LAB_NEVER}<> <(:)
lab_rest() {
	read -r -t "$1" -u "$LAB_NEVER" || true
}

# lab_pause: a millisecond in which this shell does not keep the processor from
# whom it waits for.
lab_pause() {
	lab_rest 0.001
}

# lab_file FILE REGEX SECONDS: until the file's first line matches. sysfs files
# of a driver announce nothing, so this one reads again and again.
lab_file() {
	local value end
	lab_now
	end=$((NOW + $3 * 100))
	until read -r value <"$1" && [[ $value =~ $2 ]]; do
		lab_now
		((NOW < end)) || { echo "$value"; return 1; }
		lab_pause
	done
}

# lab_requests DIR COUNT SECONDS: until the disk whose sysfs directory DIR is has
# answered COUNT reads and writes more than now.
lab_requests() {
	local end rd wr begin=
	lab_now
	end=$((NOW + $3 * 100))
	while read -r rd <"$1/statistics/rd_req" && read -r wr <"$1/statistics/wr_req"; do
		: "${begin:=$((rd + wr))}"
		((rd + wr - begin >= $2)) && return
		lab_now
		((NOW < end)) || break
		# A device may take seconds, and an idle host leaps over them.
		lab_rest 0.005
	done
	echo "$1: $((rd + wr - begin)) of $2 requests in $3 s"
	return 1
}

# lab_gone PATH SECONDS: until the path does not exist; for a device that the
# kernel is just taking away.
lab_gone() {
	local end
	lab_now
	end=$((NOW + $2 * 100))
	while [ -e "$1" ]; do
		lab_now
		((NOW < end)) || { echo "$1 is still there"; return 1; }
		lab_pause
	done
}

# lab_until SECONDS COMMAND: until the command, which must not wait itself, is
# successful; prints what it printed.
lab_until() {
	local output end
	lab_now
	end=$((NOW + $1 * 100))
	until output=$(eval "$2"); do
		lab_now
		((NOW < end)) || { echo "not within $1 s: $2"; return 1; }
		lab_pause
	done
	echo "$output"
}

# lab_drivers NAME...: loads drivers of NVMe, which are not in dom0's image, in this order.
lab_drivers() {
	local module
	for module in nvme-keyring nvme-auth "$@"; do
		[ -d "/sys/module/${module//-/_}" ] || insmod "/lab/$module.ko.xz" || return
	done
}

# lab_by_serial SERIAL: the disk with this serial number, and its PCI device's
# directory.
lab_by_serial() {
	local file serial disk dir
	for file in /sys/block/{vd*/serial,nvme*/device/serial}; do
		# Not every driver ends the line.
		serial=
		read -r serial 2>/dev/null <"$file"
		[ "$serial" = "$1" ] || continue
		disk=${file#/sys/block/} disk=${disk%%/*} dir=$(realpath "/sys/block/$disk")
		until [ -e "$dir/remove" ]; do dir=${dir%/*}; done
		[ -b "/dev/$disk" ] && echo "$disk $dir"
		return
	done
	return 1
}

# lab_grants: how many grants are mapped by anybody, as Xen itself counts them.
# Its 'g' key prints each grant in use on a line of its own, with reference and
# frame; guests' own ring pages of xenstore and console are always among them.
# Guests that nobody has taken yet do not count.
lab_grants() {
	local idle
	idle=$(xl list | awk '/^spare/ { printf " d%s ", $2 }')
	xl dmesg -c >/dev/null && xl debug-keys g && xl dmesg -c | awk -v idle="$idle" '
		/grant-table for remote/ { skip = index(idle, " " $(NF - 1) " ") }
		/\(XEN\).*\[0x/ && !skip { grants++ }
		/gnttab_usage_print_all \] done/ { whole = 1 }
		END { print grants + 0; exit !whole }'
}

# lab_grants_are COUNT SECONDS: until as many grants are mapped.
lab_grants_are() {
	local grants end
	lab_now
	end=$((NOW + $2 * 100))
	until grants=$(lab_grants) && ((grants == $1)); do
		lab_now
		((NOW < end)) || { echo "mapped grants: expected $1, saw $grants"; return 1; }
		# To look is much work, to wait is none.
		sleep 1
	done
}

# lab_clean SECONDS: until no guest but idle ones, no disk and no trace instance
# is left; prints what is. The kernel takes devices away after xl has returned.
lab_clean() {
	local left end
	lab_now
	end=$((NOW + $1 * 100))
	while left=$(lab_left) && [ -n "$left" ]; do
		lab_now
		((NOW < end)) || { echo "$left"; return 1; }
		lab_pause
	done
}

lab_left() {
	xl list | tail -n +3 | grep -v '^spare'
	# A guest's console and keyboard; of guests we have just heard.
	ls /sys/bus/xen-backend/devices | grep -v -e '^console-' -e '^vkbd-'
	ls /sys/kernel/config/nullb | grep -v features
	losetup -nl
	ls /sys/kernel/tracing/instances | grep -v gate
	true
}

# lab_gate DEV_T: from now on lab_first_io returns at the first bio for the
# block device of that number.
lab_gate() {
	local gate=/sys/kernel/tracing/instances/gate
	[ -d $gate ] || mkdir $gate
	echo 0 >$gate/events/block/block_bio_queue/enable
	: >$gate/trace
	echo "dev == $1" >$gate/events/block/block_bio_queue/filter
	echo 1 >$gate/events/block/block_bio_queue/enable
}

lab_first_io() {
	local gate=/sys/kernel/tracing/instances/gate
	head -c 1 $gate/trace_pipe >/dev/null
	echo 0 >$gate/events/block/block_bio_queue/enable
}

# lab_now: NOW becomes this host's uptime in hundredths of a second. No process
# is started for that.
lab_now() {
	read -r NOW _ </proc/uptime
	NOW=$((10#${NOW/./}))
}

# lab_timed CMD...: runs it and prints "<milliseconds of this host's clock> <status>" last.
lab_timed() {
	local begin status
	lab_now
	begin=$NOW
	"$@"
	status=$?
	lab_now
	echo "$(((NOW - begin) * 10)) $status"
}

# lab_counts: what a leak in the backend would make grow, one "name count" a line.
lab_counts() {
	echo "threads $(ps -eLo comm= | grep -c -v '^kworker/')"
	echo "irqs $(grep -c xen- /proc/interrupts)"
	echo "xenstore $(xenstore-ls / | wc -l)"
	echo "vbds $(find /sys/bus/xen-backend/devices/ -name 'vbd-*' | wc -l)"
	echo "loops $(losetup -nl | wc -l)"
	echo "zombies $(xl list | grep -c '(null)')"
}

# lab_allocations MODULE: what lives in the general-purpose slab caches by cache
# and by who allocated it, one "cache function count" a line; "module:" is before
# the function if one of MODULE is on the allocation's stack. What the slab
# allocator itself (__pcs_*) keeps objects of other caches in does not count. And
# kernel mappings by who made them, without those that are freed already and wait
# to be purged together, and without stacks, which the kernel keeps for new
# threads. The host has to be booted with slab_debug=U for these caches: then they
# also free at once and keep no object for a processor.
lab_allocations() {
	local cache _
	# Entries of sysfs that a shell has looked up keep the name of what is long
	# gone; the first time they are only marked as unused.
	for _ in 1 2 3; do echo 2 >/proc/sys/vm/drop_caches; done
	# Returns when RCU has freed all that it was given so far.
	echo 1 >/sys/module/rcutree/parameters/do_rcu_barrier
	for cache in /sys/kernel/debug/slab/kmalloc-*; do
		awk -v RS= -v module="[$1]" -v cache="${cache##*/}" '$2 !~ /^__pcs_/ {
			split($2, site, "+")
			count[(index($0, module) ? "module:" : "") site[1]] += $1
		}
		END { for (by in count) print cache, by, count[by] }' "$cache/alloc_traces"
	done
	awk '!/unpurged/ && !/kernel_clone/ {
		split($3, site, "+")
		count[site[1]]++
	}
	END { for (by in count) print "vmalloc", by, count[by] }' /proc/vmallocinfo
}

# lab_memory: bytes of memory that are in use; free pages that a processor keeps
# for itself, and slabs without an object, are not among them.
lab_memory() {
	local _ cache
	for _ in 1 2 3; do echo 3 >/proc/sys/vm/drop_caches; done
	echo 1 >/sys/module/rcutree/parameters/do_rcu_barrier
	for cache in /sys/kernel/slab/*/shrink; do echo 1 >"$cache"; done
	# A processor tells the others of pages only when they are dozens.
	cat /proc/sys/vm/stat_refresh
	lab_used
}

lab_used() {
	awk '$1 == "MemTotal:" { used += $2 }
		$1 == "MemFree:" { used -= $2 }
		$1 == "count:" { used -= 4 * $2 }
		END { printf "%d\n", used * 1024 }' /proc/meminfo /proc/zoneinfo
}

# lab_settled SECONDS: until free memory has stayed the same, but for what this
# shell itself needs, for a hundred looks a millisecond and more apart: no driver
# is at work any more.
lab_settled() {
	local last=0 free same=0 end
	lab_now
	end=$((NOW + $1 * 100))
	while ((same < 100)); do
		{ read -r _ && read -r _ free _; } </proc/meminfo
		same=$((free - last < 256 && last - free < 256 ? same + 1 : 0))
		last=$free
		lab_now
		((NOW < end)) || { echo "free memory still changes"; return 1; }
		lab_pause
	done
}

# lab_load MODULE COMMAND: takes out whichever block backend is loaded, then runs
# the command, which loads MODULE.
lab_load() {
	local module
	for module in rblkback xen_blkback; do
		[ -d "/sys/module/$module" ] || continue
		lab_file "/sys/module/$module/refcnt" '^0$' 30 && rmmod "$module" || return
	done
	eval "$2" && [ -d "/sys/module/$1" ]
}

# lab_files: what is on the disk of an ordinary dom0, one file a line, those in /etc with a sum of
# their content; what in the kernel's lists of modules is ours. Not what apt, dpkg, systemd and Xen
# keep for themselves, nor what the tests have made.
lab_files() {
	local dir prune=()
	for dir in /lab /srv /root /tmp /var/{backups,cache,log,tmp} /var/lib/{apt,dpkg,systemd,xen} \
		/etc/xen/auto /etc/apt/sources.list.d; do
		prune+=(-path "$dir" -prune -o)
	done
	find / -xdev "${prune[@]}" -printf '%p %y %m %l\n' | LC_ALL=C sort
	find /etc -xdev "${prune[@]}" -type f -exec md5sum {} + | LC_ALL=C sort -k 2
	grep -l rblkback /lib/modules/*/modules.*
	true
}
