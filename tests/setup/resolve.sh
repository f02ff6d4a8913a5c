# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Which mirror, and which versions it has today. Everything happens in a
# private apt directory below the cache; the host's apt state is only read.

# The Debian mirror that the host itself uses.
find_mirror() {
	local site
	if [ -n "${MIRROR:-}" ]; then
		echo "${MIRROR%/}"
		return
	fi
	# The filter on the label needs downloaded lists, which a fresh machine
	# lacks; then any site that ends as a Debian archive does is taken.
	site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Label: Debian' |
		grep -m1 -E '^(http|https|file):')
	[ -n "$site" ] || site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' |
		grep -m1 -E '^(http|https|file):.*/debian/?$')
	[ -n "$site" ] || die "this host's apt knows no Debian mirror: name one with MIRROR=URL"
	echo "${site%/}"
}

# The host's way of reaching a mirror (proxies, certificates, retries, checks a
# frozen mirror needs switched off), as an apt.conf for the roots made here.
acquire_settings() {
	apt-config dump Acquire |
		grep -E '^Acquire::(https?|ftp|Check-|Retries|Queue|ForceIPv|Languages|AllowInsecure|AllowWeak)' |
		grep -v -E '::Proxy-Auto-Detect|" *";$|[^:]+ "";$'
	echo 'Acquire::Languages "none";'
	echo 'APT::Install-Recommends "false";'
}

apt_sources() {
	local suite
	for suite in "$SUITE" "$SUITE-updates" "$BACKPORTS"; do
		echo "deb ${1}$MIRROR $suite main"
	done
}

# private_apt DIR: makes DIR/apt.conf, for use as $APT_CONFIG.
private_apt() {
	local dir=$1
	mkdir -p "$dir"/{etc/apt.conf.d,etc/preferences.d,state/lists/partial,cache/archives/partial}
	: >"$dir/status"
	apt_sources "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] " >"$dir/etc/sources.list"
	{
		acquire_settings
		cat <<-CONF
			APT::Architecture "amd64";
			APT::Architectures "amd64";
			APT::Sandbox::User "root";
			Dir::Etc "$dir/etc";
			Dir::State "$dir/state";
			Dir::State::status "$dir/status";
			Dir::Cache "$dir/cache";
		CONF
	} >"$dir/apt.conf"
}

# simulate ARGS...: "package version" of everything apt would install.
simulate() {
	apt-get -s -q install --no-install-recommends "$@" >"$APT/simulation" || return
	sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) .*/\1 \2/p' "$APT/simulation"
}

version_of() {
	awk -v package="$1" '$1 == package { print $2; exit }' "$APT/versions"
}

# Sets RELEASE (kernel release name), SOURCE (linux-source-X.Y), SOURCE_VERSION
# and $APT/versions, which holds every package and version that the lab gets.
resolve_versions() {
	local package
	APT=$CACHE/apt
	private_apt "$APT"
	export APT_CONFIG=$APT/apt.conf
	apt-get -q -o APT::Update::Error-Mode=any update || return
	simulate -t "$BACKPORTS" "${KERNEL_PACKAGES[@]}" >"$APT/kernel" || return
	simulate "${ROOT_PACKAGES[@]}" "${DOM0_PACKAGES[@]}" >"$APT/tools" || return
	RELEASE=$(sed -n 's/^linux-image-\([0-9][^ ]*\) .*/\1/p' "$APT/kernel" | head -n1)
	SOURCE_VERSION=$(sed -n "s/^linux-image-$RELEASE //p" "$APT/kernel")
	SOURCE=linux-source-$(sed -E 's/^([0-9]+\.[0-9]+).*/\1/' <<<"$SOURCE_VERSION")
	echo "image $RELEASE $SOURCE_VERSION, source $SOURCE"
	if ! apt-cache show "$SOURCE=$SOURCE_VERSION" >/dev/null; then
		echo "E: Version '$SOURCE_VERSION' for '$SOURCE' was not found"
		return 1
	fi
	for package in "${GUEST_PACKAGES[@]}"; do
		apt-cache show "$package" >/dev/null || {
			echo "E: Unable to locate package $package"
			return 1
		}
	done
	{
		echo "$SOURCE $SOURCE_VERSION"
		for package in "${GUEST_PACKAGES[@]}"; do
			echo "$package $(apt-cache show "$package" | sed -n 's/^Version: //p' | head -n1)"
		done
		cat "$APT/kernel" "$APT/tools"
	} | LC_ALL=C sort -u >"$APT/versions"
	unset APT_CONFIG
}

versions_key() {
	sha256sum <"$APT/versions" | cut -c1-10
}

warn_if_moved() {
	local what package proven now
	for entry in "${PROVEN[@]}"; do
		read -r what package proven <<<"$entry"
		now=$(version_of "$package")
		[[ ${now#*:} == "$proven".* || ${now#*:} == "$proven"-* || ${now#*:} == "$proven"+* ]] || {
			say "############################################################"
			say "WARNING: $what is now $now; this lab was last proven with $proven."
			say "WARNING: going on, but a failure below may come from that."
			say "############################################################"
		}
	done
}
