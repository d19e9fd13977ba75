# shellcheck shell=bash
# The parts that install.sh and uninstall.sh share: paths, steps that can be printed instead of done, and
# rollback when a step fails. Sourced, never run.
#
# Every change to the machine goes through `change` (or `write`), which only prints it under --dry-run;
# a change that can be rolled back registers how with `on_failure`, before or right after it.

# shellcheck disable=SC2034 # most are for the scripts that source this
prefix=/opt/distconv
etc=/etc/distconv
state=/var/lib/distconv
engine_state=/var/lib/distconv-engine
unit_dir=/etc/systemd/system
command_dir=/usr/local/bin
commands=(distconvd distconv-engine distconv)
units=(distconv-dispatch.service distconv-dispatch.socket distconv-engine@.service)
account=distconv

root=""
dry_run=false
step_count=0
change_count=0
current_step=""
undo=()
point_of_no_return=""
failure_code=1
work=""
test_fault=${DISTCONV_TEST_FAULT:-}

say() { printf '%s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
warn() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
  warn "$*"
  exit 1
}

wrong_usage() {
  warn "$*; see --help"
  exit 2
}

# Does a change; under --dry-run prints it.
change() {
  if "$dry_run"; then
    local words
    printf -v words '%q ' "$@"
    note "${words% }"
  else
    fault
    "$@"
  fi
}

# write FILE MODE OWNER: writes standard input to a file, completely or not at all.
write() {
  if "$dry_run"; then
    note "write $1 ($3, mode $2)"
    cat >/dev/null
    return 0
  fi
  fault
  on_failure rm -f -- "$1.part"
  (umask 077 && cat >"$1.part")
  own "$3" "$2" "$1.part"
  mv -T -- "$1.part" "$1"
}

# Tests let the change of this number fail, or the script be killed before it: DISTCONV_TEST_FAULT=fail:7
# or kill:7.
fault() {
  change_count=$((change_count + 1))
  case $test_fault in
    "fail:$change_count") die "change $change_count fails for a test" ;;
    "kill:$change_count") kill -KILL "$$" ;;
  esac
}

# Remembers a command that rolls a change back; the last one is run first. A dry run changes nothing, so it
# has nothing to roll back.
on_failure() {
  if "$dry_run"; then return 0; fi
  local words
  printf -v words '%q ' "$@"
  undo+=("$words")
}

# keep_for_rollback FILE: remembers its content, or that it does not exist.
keep_for_rollback() {
  if "$dry_run"; then return 0; fi
  if [[ -e $1 ]]; then
    local copy
    copy=$work/kept-${#undo[@]}
    cp -p -- "$1" "$copy"
    on_failure cp -p -- "$copy" "$1"
  else
    on_failure rm -f -- "$1"
  fi
}

# keep_old FILE: keeps it as FILE.old, or as the first of FILE.old.2, FILE.old.3, … that is free. A file that
# is kept already is not overwritten: the first is the original's.
keep_old() {
  local old=$1.old number=1
  while [[ -e $old || -L $old ]]; do
    if cmp --quiet "$1" "$old"; then return 0; fi
    number=$((number + 1))
    old=$1.old.$number
  done
  note "the existing file is kept as ${old##*/}"
  on_failure rm -f -- "$old"
  change cp -p -- "$1" "$old"
}

# step NAME TEXT: runs the function step_NAME.
step() {
  current_step=$2
  step_count=$((step_count + 1))
  printf '%2d. %s\n' "$step_count" "$2"
  "step_$1"
}

roll_back() {
  local i complete=true
  if [[ -n $point_of_no_return ]]; then warn "failed at '$current_step'; $point_of_no_return"; fi
  ((${#undo[@]})) || return 0
  warn "failed at '$current_step'; rolling back"
  for ((i = ${#undo[@]} - 1; i >= 0; i--)); do
    if ! eval "${undo[i]}"; then
      complete=false
      warn "this rollback command failed: ${undo[i]}"
    fi
  done
  if "$complete"; then warn "everything is as it was before"; fi
}

# no_way_back TEXT: from here on nothing is rolled back, and TEXT says what to do about a failure.
no_way_back() {
  undo=()
  point_of_no_return=$1
}

# Runs at the end of the script, whatever the reason. The exit code of a failed program is not passed on: it
# would mean something else here.
finish() {
  local code=$?
  set +e
  trap - EXIT
  trap '' HUP INT TERM PIPE
  if ((code != 0)); then
    code=$failure_code
    roll_back
  fi
  if [[ -n $work ]]; then rm -rf -- "$work"; fi
  exit "$code"
}

catch_the_end() {
  trap finish EXIT
  trap 'failure_code=129; exit 129' HUP
  trap 'failure_code=130; exit 130' INT
  trap 'failure_code=141; exit 141' PIPE
  trap 'failure_code=143; exit 143' TERM
}

# Checks --root, and that we have the rights that are needed.
check_root() {
  if [[ -n $root ]]; then
    [[ $root == /* ]] || wrong_usage "--root $root: expected an absolute path"
    root=$(realpath -m -- "$root")
    [[ $root != / ]] || wrong_usage "--root /: leave it out to work on this machine"
  elif ! "$dry_run" && ((EUID != 0)); then
    die "this needs root: sudo $0 (or try it with --root DIR or --dry-run)"
  fi
}

staged() { [[ -n $root ]]; }

# Whether systemd runs here and we work on this machine.
live() { ! staged && [[ -d /run/systemd/system ]]; }

has_account() { getent passwd "$account" >/dev/null; }

# own OWNER:GROUP MODE PATH: in a staged tree there is no such user; systemd-tmpfiles sets it at boot.
own() {
  if ! staged; then chown -- "$1" "$3"; fi
  chmod -- "$2" "$3"
}

# Only one script at a time works on a tree. The lock is on a folder that exists anyway, so that no lock file
# is left behind, and the kernel releases it with the process.
lock() {
  if "$dry_run"; then return 0; fi
  exec 9<"${root:-/opt}"
  flock --nonblock 9 || die "another install or uninstall is running on ${root:-this machine}"
}

remove_empty() { rmdir --ignore-fail-on-non-empty -- "$@" 2>/dev/null || true; }

# Prints the engine units that systemd knows, running or not.
engine_instances() {
  systemctl list-units --all --plain --no-legend 'distconv-engine@*.service' | awk '{print $1}'
}

running_units() {
  local unit
  for unit in distconv-dispatch.socket distconv-dispatch.service $(engine_instances); do
    if systemctl --quiet is-active "$unit"; then printf '%s\n' "$unit"; fi
  done
}
