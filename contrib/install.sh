#!/usr/bin/env bash
# Installs DistConv on a Debian or Ubuntu machine, or upgrades it in place.
#
# A release is a virtual environment below /opt/distconv/releases, named by its version and a hash of its
# contents. It is built and tested while the old one goes on working; `current` is a symbolic link, and
# moving it is the upgrade. When a step fails, all changes are rolled back in reverse order and the old
# release runs again. When the script itself is killed, run it again and it continues: every step checks
# what exists, and changes only what is not as it must be.
#
# A release does not contain its own path, so a tree staged by `--root DIR` runs below DIR and wherever DIR
# is copied to.

set -Eeuo pipefail

contrib=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
# shellcheck source=contrib/common.sh
source "$contrib/common.sh"

help() {
  cat <<'TEXT'
usage: install.sh [--role ROLE] [OPTION]...

Installs DistConv: programs in /opt/distconv, configuration in /etc/distconv (yours is never
overwritten), state in /var/lib/distconv, the system user `distconv`, and systemd units, enabled and
started. Run again, it upgrades in place and keeps the state; when a step fails, everything is rolled
back.

  --role ROLE            dispatch (the server; default), engine, or all; added to existing roles
  --server URL           where engines find the server (engine.toml; default http://127.0.0.1:8080)
  --engine-key FILE      the engines' key, from the dispatch machine's
                         /etc/distconv/credentials/engine.key
                         Both only change files that are as this script wrote them; a file that was
                         changed by hand stays, and a warning says what to do.
  --admin-key-file FILE  write the first admin key to FILE (mode 0600) instead of showing it once
  --socket               let systemd listen on the port, so that requests wait during a restart
  --wheel FILE           install this wheel instead of building this checkout
  --wheelhouse DIR       take all packages from DIR; no network is used
  --python PROGRAM       Python 3.11 or newer (default: the system's)
  --rollback             go back to the previous release; the state stays as it is
  --dry-run              print each step and change nothing
  --root DIR             stage everything below DIR: no user, no systemctl, no other change
  --help

examples:
  sudo contrib/install.sh                                the dispatch server
  sudo contrib/install.sh --role all                     the server and an engine on one machine
  sudo contrib/install.sh --role engine --server http://dispatch:8080 --engine-key engine.key
  sudo contrib/install.sh --wheelhouse /media/stick/wheels      without a network
  contrib/install.sh --dry-run                           show what would be done
  contrib/install.sh --root "$PWD/image" --role all      into an image or a package

Exit codes: 0 done, 1 failed and rolled back, 2 wrong usage.
TEXT
}

# ------------------------------------------------------------------------------------------ options

roles_asked=""
server=""
engine_key=""
admin_key_file=""
with_socket=false
wheel=""
wheelhouse=""
python=""
rolling_back=false

parse() {
  while (($#)); do
    case $1 in
      --help | -h) help && exit 0 ;;
      --socket) with_socket=true ;;
      --rollback) rolling_back=true ;;
      --dry-run) dry_run=true ;;
      --role | --server | --engine-key | --admin-key-file | --wheel | --wheelhouse | --python | --root)
        (($# > 1)) || wrong_usage "$1 needs a value"
        parse_value "$1" "$2"
        shift
        ;;
      *) wrong_usage "unknown option $1" ;;
    esac
    shift
  done
}

parse_value() {
  [[ -n $2 ]] || wrong_usage "$1 is empty"
  case $1 in
    --role) roles_asked=$2 ;;
    --server) server=$2 ;;
    --engine-key) engine_key=$(realpath -m -- "$2") ;;
    --admin-key-file) admin_key_file=$(realpath -m -- "$2") ;;
    --wheel) wheel=$(realpath -m -- "$2") ;;
    --wheelhouse) wheelhouse=$(realpath -m -- "$2") ;;
    --python) python=$2 ;;
    --root) root=$2 ;;
  esac
}

check_options() {
  case $roles_asked in
    "" | dispatch | engine | all) ;;
    *) wrong_usage "--role $roles_asked: choose dispatch, engine or all" ;;
  esac
  # It is written into a TOML file, so only the characters that a server's URL needs are allowed.
  [[ -z $server || $server =~ ^https?://[][A-Za-z0-9.:_/-]+$ ]] ||
    wrong_usage "--server $server: expected a URL such as http://dispatch:8080"
  [[ -z $engine_key || -f $engine_key && -s $engine_key ]] ||
    wrong_usage "--engine-key $engine_key: expected a file with a key"
  [[ -z $wheel || $wheel == *.whl && -f $wheel && -r $wheel ]] ||
    wrong_usage "--wheel $wheel: expected a readable .whl file"
  if "$rolling_back" && [[ -n $server$engine_key$admin_key_file ]]; then
    wrong_usage "--rollback changes no configuration, so it takes no --server, --engine-key or --admin-key-file"
  fi
  [[ -z $wheelhouse || -d $wheelhouse ]] || wrong_usage "--wheelhouse $wheelhouse: no such folder"
}

# The operator's own settings of our programs, of Python and of pip's target must not have an effect.
clear_environment() {
  local name
  for name in "${!DISTCONV_@}" PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT \
    PIP_REQUIREMENT PIP_CONSTRAINT PIP_REQUIRE_VIRTUALENV PIP_REQUIRE_HASHES; do
    unset "$name"
  done
  export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
  umask 022
  cd /
}

# ----------------------------------------------------------------------------------- current state

usable_python() {
  "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
  local candidate
  if [[ -n $python ]]; then
    usable_python "$python" ||
      die "--python $python: not Python 3.11 or newer with its venv module"
  else
    for candidate in /usr/bin/python3 /usr/bin/python3.1{4,3,2,1} /usr/local/bin/python3; do
      if usable_python "$candidate"; then python=$candidate && break; fi
    done
    [[ -n $python ]] || die "Python 3.11 or newer with its venv module is needed" \
      "(Debian 12, Ubuntu 24.04 or newer: apt install python3-venv), or name one with --python"
  fi
  # The service's user cannot read home folders.
  if ! staged && [[ $("$python" -c 'import sys; print(sys.base_prefix)') == @(/root|/home)/* ]]; then
    die "$python is in a home folder, where the service cannot read it; name another with --python"
  fi
}

find_tools() {
  local tool missing=()
  for tool in flock sha256sum readlink realpath cmp awk sed useradd userdel getent; do
    command -v "$tool" >/dev/null || [[ -x /usr/sbin/$tool ]] || missing+=("$tool")
  done
  ((${#missing[@]} == 0)) || die "missing: ${missing[*]} (Debian, Ubuntu: apt install" \
    "coreutils util-linux diffutils passwd libc-bin mawk sed)"
  [[ -d $contrib/systemd && -r $contrib/../constraints.txt ]] ||
    die "run this script from a checkout, or from an unpacked source distribution"
}

# Finds out which roles this machine has, and which of them are new.
find_roles() {
  local had=""
  if [[ -e $root$prefix/roles ]]; then had=$(<"$root$prefix/roles"); fi
  local all="$had ${roles_asked:-${had:-dispatch}}"
  is_dispatch=false && is_engine=false
  if [[ $all == *dispatch* || $all == *all* ]]; then is_dispatch=true; fi
  if [[ $all == *engine* || $all == *all* ]]; then is_engine=true; fi
  roles=()
  if "$is_dispatch"; then roles+=(dispatch); fi
  if "$is_engine"; then roles+=(engine); fi
  had_dispatch=false && had_engine=false
  if [[ $had == *dispatch* ]]; then had_dispatch=true; fi
  if [[ $had == *engine* ]]; then had_engine=true; fi
}

# A release is named by its version and a hash of everything that goes into it.
find_release() {
  local checkout
  checkout=$(realpath -- "$contrib/..")
  releases=$root$prefix/releases
  old_id=""
  if [[ -L $root$prefix/current ]]; then old_id=$(basename -- "$(readlink -- "$root$prefix/current")"); fi
  extras=client
  if "$is_engine"; then extras=engine,client; fi
  if "$rolling_back"; then
    [[ -L $root$prefix/previous ]] || die "there is no previous release"
    release_id=$(basename -- "$(readlink -- "$root$prefix/previous")")
  else
    release_id=$(version_of "$checkout")-$(content_of "$checkout")
  fi
  release=$releases/$release_id
  share=$contrib/systemd
  if "$rolling_back"; then share=$release/share/distconv; fi
  old_share=$root$prefix/current/share/distconv
}

version_of() {
  if [[ -n $wheel ]]; then
    local name=${wheel##*/}
    name=${name#*-} && printf '%s' "${name%%-*}"
  else
    sed -n 's/^version = "\(.*\)"$/\1/p' "$1/pyproject.toml"
  fi
}

content_of() {
  local program=("$wheel")
  if [[ -z $wheel ]]; then
    program=(pyproject.toml README.md LICENSE distconvd plugins spool engine client)
  fi
  {
    "$python" -VV
    printf '%s\n' "$extras"
    cd -- "$1"
    find "${program[@]}" constraints.txt contrib/{systemd,common.sh,uninstall.sh,README.md} -type f \
      -not -path '*/__pycache__/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum |
      # A wheel's path does not matter.
      sed "s| /.*/| |"
  } | sha256sum | cut -c 1-12
}

# --------------------------------------------------------------------------------------- the steps

step_release() {
  if [[ -e $release/complete ]]; then note "it exists and is complete" && return 0; fi
  local new=$releases/.new
  on_failure remove_empty "$releases" "$root$prefix"
  on_failure rm -rf -- "$new"
  change mkdir -p -- "$releases"
  change rm -rf -- "$new"
  change "$python" -m venv "$new"
  if [[ -z $wheel ]]; then build_wheel "$new/bin/python"; else copy_wheel; fi
  fetch "$new/bin/python" "$work/packages" "distconv[$extras] @ file://$wheel"
  install_packages "$new/bin/python" "$work/packages"
  make_relocatable "$new"
  copy_share "$new"
  try_release "$new"
  change touch "$new/complete"
  if ! "$dry_run"; then sync -f "$new"; fi
  on_failure rm -rf -- "$release"
  change rm -rf -- "$release"
  change mv -T -- "$new" "$release"
}

# Builds this checkout's wheel into $work/wheel and names it in $wheel.
build_wheel() {
  fetch "$1" "$work/tools" hatchling
  # Outside of the environment: the release must not contain its build tools.
  change "$1" -m pip install --quiet --no-index --no-deps --target "$work/built-with" \
    "$work"/tools/*.whl
  change env PYTHONPATH="$work/built-with" "$1" -m pip wheel --quiet --no-deps \
    --no-build-isolation --wheel-dir "$work/wheel" "$(realpath -- "$contrib/..")"
  wheel=$(printf '%s' "$work"/wheel/distconv-*.whl)
}

# Copies the wheel to a path that needs no quoting in a URL.
copy_wheel() {
  mkdir -- "$work/wheel"
  cp -- "$wheel" "$work/wheel"
  wheel=$work/wheel/${wheel##*/}
}

# fetch PYTHON FOLDER REQUIREMENT: fetches the locked versions, and accepts only files with locked hashes.
fetch() {
  local constraints=$contrib/../constraints.txt from=() file hash
  if [[ -n $wheelhouse ]]; then from=(--no-index --find-links "$wheelhouse"); fi
  sed -n 's/^\([A-Za-z0-9][^ ]*==.*[^ \\]\) *\\*$/\1/p' "$constraints" >"$work/pins.txt"
  change "$1" -m pip download --quiet --only-binary :all: "${from[@]}" \
    --constraint "$work/pins.txt" --dest "$2" "$3"
  if "$dry_run"; then return 0; fi
  for file in "$2"/*; do
    hash=$(sha256sum <"$file")
    if [[ -n $wheel ]] && cmp --quiet "$file" "$wheel"; then continue; fi
    grep --quiet --fixed-strings "sha256:${hash%% *}" "$constraints" ||
      die "${file##*/} is not the file that constraints.txt names; fetch it again"
  done
}

install_packages() {
  change "$1" -m pip install --quiet --no-index --no-deps "$2"/*.whl
}

# Lets the commands find Python in their own folder, and removes files that contain the build path.
make_relocatable() {
  if "$dry_run"; then note "let the commands in $1/bin find Python in their own folder" && return 0; fi
  local file name
  for file in "$1"/bin/*; do
    name=${file##*/}
    if [[ " ${commands[*]} " == *" $name "* ]]; then
      # These three lines are a command for a shell and a string for Python.
      sed -i "1c\\
#!/bin/sh\\
'''exec' \"\$(dirname -- \"\$(readlink -f -- \"\$0\")\")/python3\" \"\$0\" \"\$@\"\\
' '''" "$file"
    elif [[ $name != python* ]]; then
      rm -r -- "$file"
    fi
  done
}

copy_share() {
  change mkdir -p -- "$1/share/distconv"
  change cp -R -- "$contrib"/systemd/. "$contrib/common.sh" "$contrib/uninstall.sh" \
    "$contrib/README.md" "$1/share/distconv"
}

# A release that does not even start must not become current.
try_release() {
  local name
  for name in distconvd distconv; do change "$1/bin/$name" --version; done
  if "$is_engine"; then change "$1/bin/distconv-engine" --version; fi
}

step_account() {
  if staged; then note "left to systemd-sysusers when the staged tree is booted" && return 0; fi
  if has_account; then note "it exists" && return 0; fi
  local group=(--user-group)
  if getent group "$account" >/dev/null; then group=(--gid "$account"); fi
  on_failure drop_account
  change useradd --system "${group[@]}" --home-dir "$state" --no-create-home \
    --shell /usr/sbin/nologin --comment DistConv "$account"
}

drop_account() { if has_account; then userdel "$account"; fi; }

step_folders() {
  make_folder "root:$account" 0750 "$etc" rm -rf --
  make_folder root:root 0700 "$etc/credentials" rm -rf --
  make_folder "$account:$account" 0750 "$state" drop_state
  make_folder "$account:$account" 0750 "$engine_state" rm -rf --
}

# make_folder OWNER MODE PATH UNDO…
make_folder() {
  local place=$root$3
  if [[ -d $place ]]; then note "$place exists" && return 0; fi
  on_failure "${@:4}" "$place"
  on_failure rm -rf -- "$place.part"
  change mkdir -p -- "$place.part"
  if ! "$dry_run"; then own "$1" "$2" "$place.part"; fi
  change mv -T -- "$place.part" "$place"
}

# Once the new daemon has served, its state may contain acknowledged jobs.
drop_state() {
  if "$dispatch_was_ready"; then warn "$1 stays: it may contain new jobs" && return 0; fi
  rm -rf -- "$1"
}

step_configuration() {
  local name
  for name in distconvd.toml dispatch.env engine.toml engine.env; do
    place_configuration "$name" "$root$etc/$name"
  done
  if [[ -n $server ]]; then set_server "$root$etc/engine.toml"; fi
}

place_configuration() {
  local new=$share/$1
  if [[ ! -e $2 ]]; then
    write_ours "$2" 0640 "root:$account" <<<"$(with_server "$new")"
  elif cmp --quiet "$new" "$old_share/$1" || is_untouched "$2"; then
    note "$2 stays"
  else
    keep_for_rollback "$2.new"
    write "$2.new" 0640 "root:$account" <"$new"
    note "$2 stays; the new defaults are next to it: $1.new"
  fi
}

# A file that the operator has changed is never overwritten; one that is as this script wrote it may be. So
# the hash of its content goes into a list before it is written: a run that is killed in between has changed
# nothing yet.
write_ours() {
  local content=$work/content
  cat >"$content"
  keep_for_rollback "$written"
  write "$written" 0600 root:root <<<"$(cat -- "$written" 2>/dev/null; print_mark "$content" "$1")"
  keep_for_rollback "$1"
  write "$@" <"$content"
}

# print_mark FILE PATH: prints the line of the list for this content at this path.
print_mark() { printf '%s %s\n' "$(sha256sum <"$1" | cut -c 1-64)" "${2#"$root"}"; }

# Whether a file is as this script wrote it (or as the current release has it by default).
is_untouched() {
  cmp --quiet "$1" "$old_share/${1##*/}" || cmp --quiet "$1" "$share/${1##*/}" ||
    grep --quiet --line-regexp --fixed-strings -- "$(print_mark "$1" "$1")" "$written" 2>/dev/null
}

# Sets --server in a file that existed before.
set_server() {
  check_variables
  [[ -e $1 ]] || return 0
  local there
  there=$(server_in "$1")
  if [[ $there == "$server" ]]; then return 0; fi
  if is_untouched "$1"; then
    note "$1: server changes from ${there:-not set} to $server"
    write_ours "$1" 0640 "root:$account" <<<"$(with_server "$1")"
    changed=true
  else
    not_applied "$1 was changed by hand and stays: its server is ${there:-not set}, but --server is" \
      "$server; edit that line, then: systemctl restart 'distconv-engine@*'"
  fi
}

# Warns of variables, which override the file.
check_variables() {
  local file there
  for file in "$root$etc"/engine.env "$root$etc"/engine-*.env; do
    [[ -r $file ]] || continue
    there=$(sed -n 's/^[[:space:]]*DISTCONV_SERVER=//p' "$file" | tr -d "\"'" | tail -n 1)
    if [[ -n $there && $there != "$server" ]]; then
      not_applied "$file stays, and overrides engine.toml: its DISTCONV_SERVER is $there, but --server" \
        "is $server; remove that line, then: systemctl restart 'distconv-engine@*'"
    fi
  done
}

# Prints the value of the first `server = "…"` of a TOML file.
server_in() {
  local line="^[[:space:]]*server[[:space:]]*=[[:space:]]*[\"']\\([^\"']*\\)[\"'].*"
  sed -n "s/$line/\\1/p" "$1" | head -n 1
}

# The warning is printed at the end, where it is seen.
not_applied() { warnings+=("$*"); }

with_server() {
  if [[ -n $server ]]; then
    sed "s|^server = .*|server = \"$server\"|" "$1"
  else
    cat -- "$1"
  fi
}

step_keys() {
  local keys=$root$etc/keys.json file=$root$etc/credentials/engine.key
  if "$is_dispatch"; then
    keep_for_rollback "$keys"
    if [[ -e $keys ]]; then keep_keys "$keys"; else make_admin_key "$keys"; fi
  fi
  if [[ -s $file ]]; then
    set_engine_key "$file"
  elif [[ -n $engine_key ]]; then
    write_ours "$file" 0600 root:root <"$engine_key"
  elif "$is_dispatch"; then
    make_key "$keys" "engines-$(date -u +%Y%m%dT%H%M%SZ)" --role engine --role read
    write_ours "$file" 0600 root:root <<<"$new_key"
  fi
  # root owns it by now; the daemon only reads it.
  if "$is_dispatch" && ! "$dry_run"; then own "root:$account" 0640 "$keys"; fi
}

keep_keys() {
  note "$1 stays"
  if [[ -n $admin_key_file && ! -e $admin_key_file ]]; then
    not_applied "$1 stays, and contains only hashes, so there is no key for --admin-key-file" \
      "$admin_key_file; make another: distconvd keys add --key-file $1 --name NAME --role admin"
  fi
}

# Sets --engine-key if there is a key already, and keeps the old one: it may be the only copy of the key that
# other machines use.
set_engine_key() {
  if [[ -z $engine_key || $(<"$engine_key") == "$(<"$1")" ]]; then
    note "$1 stays"
  elif is_untouched "$1"; then
    note "$1 is replaced by the key in $engine_key"
    keep_old "$1"
    write_ours "$1" 0600 root:root <"$engine_key"
    changed=true
  else
    not_applied "$1 was changed by hand and stays: the SHA-256 of its key is $(short_hash "$1")," \
      "but that of --engine-key $engine_key is $(short_hash "$engine_key"); to use that one:" \
      "install -m 0600 $engine_key $1, then: systemctl restart 'distconv-engine@*'"
  fi
}

# Enough to distinguish keys, but no help in guessing one.
short_hash() { printf '%s…' "$(sha256sum <"$1" | cut -c 1-8)"; }

make_admin_key() {
  keep_for_rollback "$1.lock"
  make_key "$1" admin --role admin
  if [[ -n $admin_key_file ]]; then
    keep_for_rollback "$admin_key_file"
    write "$admin_key_file" 0600 root:root <<<"$new_key"
  else
    admin_key=$new_key
  fi
}

# make_key FILE NAME ROLE…: makes $new_key; the file contains only its hash.
make_key() {
  local words=("$release/bin/distconvd" keys add --key-file "$1" --name "$2" "${@:3}")
  if "$dry_run"; then change "${words[@]}" && return 0; fi
  fault
  new_key=$("${words[@]}")
}

step_check() {
  if ! "$is_dispatch"; then note "the engine checks its configuration when it starts" && return 0; fi
  change read_configuration
}

read_configuration() {
  "$release/bin/distconvd" --config "$root$etc/distconvd.toml" config >"$work/settings.txt"
}

step_units() {
  # First, so that it runs last in a rollback: by then the old units and the old release are restored.
  if live; then on_failure start_again; fi
  local unit
  for unit in "${units[@]}"; do place_file "$share/$unit" "$root$unit_dir/$unit"; done
  place_file "$share/distconv.sysusers" "$root/etc/sysusers.d/distconv.conf"
  place_file "$share/distconv.tmpfiles" "$root/etc/tmpfiles.d/distconv.conf"
}

# place_file FROM TO: a file that was changed by hand, or is another program's, is kept next to it.
place_file() {
  if cmp --quiet "$1" "$2"; then note "$2 is up to date" && return 0; fi
  changed=true
  if [[ $1 == *.socket ]]; then socket_changed=true; fi
  keep_for_rollback "$2"
  if [[ -e $2 ]] && ! cmp --quiet "$2" "$old_share/${1##*/}"; then
    note "$2 was changed here; for your own changes use systemctl edit"
    keep_old "$2"
  fi
  change mkdir -p -- "$(dirname -- "$2")"
  write "$2" 0644 root:root <"$1"
}

start_again() {
  let_start
  systemctl daemon-reload
  systemctl reset-failed 'distconv-*'
  if "$was_stopped" && ((${#was_running[@]})); then systemctl start "${was_running[@]}"; fi
}

step_state() {
  if live && "$changed"; then stop_units; fi
  if ! "$is_dispatch"; then return 0; fi
  take_over_original
  if "$changed" && [[ -n $old_id && -e $root$state/state.json ]]; then copy_state; fi
}

stop_units() {
  mapfile -t was_running < <(running_units)
  was_stopped=true
  hold_starts
  local unit stopping=()
  for unit in "${was_running[@]}"; do
    case $unit in
      # Engines go on encoding without the daemon, and drain when the new one can accept their reports.
      distconv-engine@*) ;;
      # The socket goes on accepting connections for the new release.
      *.socket) if "$socket_changed"; then stopping+=("$unit"); fi ;;
      *) stopping+=("$unit") ;;
    esac
  done
  if ((${#stopping[@]})); then change systemctl --quiet stop "${stopping[@]}"; fi
}

# From here to `let_start` a start waits (ExecStartPre= of the unit takes this lock, too): the socket must
# not start the old release while its state is being copied. The lock ends with this process.
hold_starts() {
  if "$dry_run"; then return 0; fi
  exec 8<"$releases"
  flock 8
}

let_start() { exec 8<&-; }

# Takes over the state of the original, whose unit has the same name as ours and is stopped by now.
take_over_original() {
  local theirs=$root$prefix/server/state.json ours=$root$state/state.json
  if [[ -e $ours || ! -e $theirs ]]; then return 0; fi
  note "the original's jobs are taken over from $theirs, which is kept"
  on_failure rm -f -- "$ours"
  write "$ours" 0600 "$account:$account" <"$theirs"
}

# Results and the archive only grow, and are too large to copy; a release that fails to start has not
# touched them.
copy_state() {
  local copy=$root$state/before-upgrade.new
  note "a copy of the state goes to $state/before-upgrade"
  on_failure rm -rf -- "$copy"
  change rm -rf -- "$copy"
  change mkdir -m 0700 -- "$copy"
  change find "$root$state" -mindepth 1 -maxdepth 1 "${not_state[@]}" \
    -exec cp -a --reflink=auto -t "$copy" -- {} +
  on_failure restore_state "$copy"
}

# Only if the new release never served: what it has acknowledged must not be lost with it.
restore_state() {
  if "$dispatch_was_ready"; then return 0; fi
  find "$root$state" -mindepth 1 -maxdepth 1 "${not_state[@]}" -exec rm -rf -- {} +
  find "$1" -mindepth 1 -maxdepth 1 -exec cp -a --reflink=auto -t "$root$state" -- {} +
}

step_switch() {
  if [[ $release_id == "$old_id" ]]; then note "it is current already" && return 0; fi
  local previous=""
  if [[ -L $root$prefix/previous ]]; then previous=$(readlink -- "$root$prefix/previous"); fi
  on_failure point "$root$prefix/previous" "$previous"
  on_failure point "$root$prefix/current" "${old_id:+releases/$old_id}"
  if [[ -n $old_id ]]; then change point "$root$prefix/previous" "releases/$old_id"; fi
  change point "$root$prefix/current" "releases/$release_id"
}

# point LINK TARGET: moves the link atomically; without a target it is removed.
point() {
  if [[ -z $2 ]]; then rm -f -- "$1" && return 0; fi
  ln -sfn -- "$2" "$1.new"
  mv -T -- "$1.new" "$1"
}

step_commands() {
  local name link
  for name in "${commands[@]}"; do
    link=$root$command_dir/$name
    if [[ $(readlink -- "$link") == "$prefix/current/bin/$name" ]]; then continue; fi
    [[ ! -e $link && ! -L $link ]] || die "$link is not ours; move it away and run this again"
    on_failure rm -f -- "$link"
    change mkdir -p -- "$root$command_dir"
    change ln -s -- "$prefix/current/bin/$name" "$link"
  done
}

step_start() {
  enable_units
  if live; then start_units; else note "nothing is started: systemd does not run here"; fi
  # Written last: after a run that was killed before this, the next one enables the rest.
  if [[ ! -e $root$prefix/roles || $(<"$root$prefix/roles") != "${roles[*]}" ]]; then
    keep_for_rollback "$root$prefix/roles"
    write "$root$prefix/roles" 0644 root:root <<<"${roles[*]}"
  fi
}

enable_units() {
  if live; then change systemctl daemon-reload; fi
  if "$is_dispatch"; then
    if "$with_socket"; then enable distconv-dispatch.socket sockets.target; fi
    if ! "$had_dispatch"; then enable distconv-dispatch.service multi-user.target; fi
  fi
  if "$is_engine" && ! "$had_engine"; then enable distconv-engine@1.service multi-user.target; fi
}

start_units() {
  on_failure stop_new
  let_start
  if "$is_dispatch"; then start_dispatch; fi
  if "$is_engine"; then start_engines; fi
}

enable() {
  if ! staged && command -v systemctl >/dev/null; then
    if systemctl --quiet is-enabled "$1" 2>/dev/null; then return 0; fi
    on_failure systemctl --quiet disable "$1"
    change systemctl --quiet enable "$1"
    return 0
  fi
  local link=$root$unit_dir/$2.wants/$1 unit=${1/@1/@}
  if [[ -L $link ]]; then return 0; fi
  on_failure rm -f -- "$link"
  change mkdir -p -- "$(dirname -- "$link")"
  change ln -s -- "$unit_dir/$unit" "$link"
}

# Stops the units that may run the new release.
stop_new() {
  local unit all=()
  for unit in $(running_units); do
    if [[ $unit != distconv-engine@* ]] || "$engines_restarted"; then all+=("$unit"); fi
  done
  if ((${#all[@]})); then systemctl --quiet stop "${all[@]}"; fi
}

# A unit that was disabled stays down. systemctl waits for READY, and fails if it does not come.
start_dispatch() {
  if systemctl --quiet is-enabled distconv-dispatch.socket 2>/dev/null; then
    bring_up start distconv-dispatch.socket
  fi
  if "$dry_run" || wanted distconv-dispatch.service; then
    bring_up start distconv-dispatch.service
    dispatch_was_ready=true
  else
    note "distconv-dispatch is disabled, so it is not started"
  fi
}

# bring_up VERB UNIT…: if one does not start, prints why before the rollback removes its unit.
bring_up() {
  if change systemctl "$@"; then return 0; fi
  local named=("${@:2}")
  journalctl --no-pager --quiet --lines 10 --output cat "${named[@]/#/--unit=}" >&2
  return 1
}

# Whether a unit is enabled, or was running before.
wanted() {
  [[ " ${was_running[*]} " == *" $1 "* ]] || systemctl --quiet is-enabled "$1" 2>/dev/null
}

start_engines() {
  local engines
  if [[ ! -s $root$etc/credentials/engine.key ]] && ! "$dry_run"; then
    warn "the engines have no key: put it into $etc/credentials/engine.key (mode 0600)," \
      "then: systemctl start distconv-engine@1"
    return 0
  fi
  mapfile -t engines < <(wanted_engines)
  if ((${#engines[@]} == 0)); then return 0; fi
  if "$changed"; then
    engines_restarted=true
    bring_up restart "${engines[@]}"
  else
    bring_up start "${engines[@]}"
  fi
}

wanted_engines() {
  local name
  {
    for name in "$unit_dir"/multi-user.target.wants/distconv-engine@*.service; do
      if [[ -L $name ]]; then printf '%s\n' "${name##*/}"; fi
    done
    for name in "${was_running[@]}"; do
      if [[ $name == distconv-engine@* ]]; then printf '%s\n' "$name"; fi
    done
  } | sort -u
}

step_tidy() {
  if [[ -d $root$state/before-upgrade.new ]]; then
    change rm -rf -- "$root$state/before-upgrade"
    change mv -T -- "$root$state/before-upgrade.new" "$root$state/before-upgrade"
  fi
  local kept other
  kept=" $release_id $(basename -- "$(readlink -- "$root$prefix/previous")") "
  for other in "$releases"/*; do
    if [[ -d $other && $kept != *" ${other##*/} "* ]]; then change rm -rf -- "$other"; fi
  done
}

# systemd cannot listen on the port while the daemon itself does, so the daemon has to be stopped.
needs_socket() { "$with_socket" && live && ! systemctl --quiet is-active distconv-dispatch.socket; }

# ------------------------------------------------------------------------------------------- all

report() {
  local line
  for line in "${warnings[@]}"; do warn "WARNING: $line"; done
  say
  if "$dry_run"; then say "Nothing was changed." && return 0; fi
  say "DistConv ${release_id%-*} is installed${root:+ in $root} (${roles[*]}; release $release_id)."
  if [[ -n $admin_key ]]; then
    say
    say "  The admin key, which is not shown again:  $admin_key"
  elif [[ -n $admin_key_file && -e $admin_key_file ]]; then
    say "  The admin key is in $admin_key_file"
  fi
  say
  if "$is_dispatch"; then
    say "  systemctl status distconv-dispatch      its status; log: journalctl -u distconv-dispatch -f"
    say "  $etc/distconvd.toml           settings"
    say "  $etc/credentials/engine.key   the engines' key; on each machine that encodes:"
    say "      sudo contrib/install.sh --role engine --server http://THIS-MACHINE:8080 --engine-key engine.key"
  fi
  if "$is_engine"; then
    say "  systemctl status distconv-engine@1      status of the engine"
    say "  $etc/engine.toml              where it reads sources and writes results"
  fi
  say "  $prefix/current/share/distconv/uninstall.sh     removes everything"
}

main() {
  parse "$@"
  check_options
  clear_environment
  check_root
  find_tools
  find_python
  if staged && ! "$dry_run"; then mkdir -p -- "$root"; fi
  catch_the_end
  work=$(mktemp -d)
  lock
  find_roles
  find_release

  engines_restarted=false
  changed=false && socket_changed=false && was_stopped=false && was_running=() && dispatch_was_ready=false
  admin_key="" && new_key="" && warnings=() && written=$root$prefix/written
  not_state=(-not -name distconv-media -not -name '*.archive' -not -name 'before-upgrade*')
  if [[ $release_id != "$old_id" ]] || needs_socket; then changed=true; fi

  say "DistConv ${release_id%-*} for ${roles[*]}${root:+, staged in $root}${old_id:+, now $old_id}"
  if ! "$rolling_back"; then
    step release "Build the release $release_id"
    step account "Make the system user $account"
    step folders "Make the folders"
    step configuration "Install the configuration"
    step keys "Make the first keys"
  fi
  step check "Check the configuration with the new release"
  step units "Install the units"
  step state "Stop the running units, and copy the state"
  step switch "Make the release current"
  step commands "Link the commands into $command_dir"
  step start "Enable and start the units"
  no_way_back "the install is complete, and the next one removes what is left over"
  step tidy "Remove old releases"
  report
}

main "$@"
