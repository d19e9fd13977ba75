# shellcheck shell=bash
# What install.sh and uninstall.sh share: the places, steps that can be shown instead of done, and
# taking back what was done when a step fails. Sourced, never run.
#
# Every change to the machine goes through `change` (or `write`), which only prints it under --dry-run;
# every step that can be taken back says how with `on_failure`, before or right after its change.

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

# write FILE MODE OWNER: makes a file of standard input, whole or not at all.
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

# Remembers a command that takes back what was done; the last one is run first. A dry run does nothing
# that could be taken back.
on_failure() {
  if "$dry_run"; then return 0; fi
  local words
  printf -v words '%q ' "$@"
  undo+=("$words")
}

# keep_for_undo FILE: remembers it as it is, or that it is not there.
keep_for_undo() {
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

# keep_old FILE: keeps it as FILE.old, or as the first of FILE.old.2, FILE.old.3, … that is free. What is
# kept already stays: the first is the original's.
keep_old() {
  local old=$1.old number=1
  while [[ -e $old || -L $old ]]; do
    if cmp --quiet "$1" "$old"; then return 0; fi
    number=$((number + 1))
    old=$1.old.$number
  done
  note "the one that was there is kept as ${old##*/}"
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

take_back() {
  local i whole=true
  if [[ -n $point_of_no_return ]]; then warn "failed at '$current_step'; $point_of_no_return"; fi
  ((${#undo[@]})) || return 0
  warn "failed at '$current_step'; taking back what was done"
  for ((i = ${#undo[@]} - 1; i >= 0; i--)); do
    if ! eval "${undo[i]}"; then
      whole=false
      warn "this could not be done: ${undo[i]}"
    fi
  done
  if "$whole"; then warn "everything is as it was before"; fi
}

# no_way_back TEXT: nothing is taken back from here on, and TEXT says what to do about a failure.
no_way_back() {
  undo=()
  point_of_no_return=$1
}

# The end of the script, whatever led to it. A program that failed has codes of its own, which would mean
# something else here.
finish() {
  local code=$?
  set +e
  trap - EXIT
  trap '' HUP INT TERM PIPE
  if ((code != 0)); then
    code=$failure_code
    take_back
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

# Checks --root, and that we may do what is asked.
check_root() {
  if [[ -n $root ]]; then
    [[ $root == /* ]] || wrong_usage "--root $root: give an absolute path"
    root=$(realpath -m -- "$root")
    [[ $root != / ]] || wrong_usage "--root /: leave it out to work on this machine"
  elif ! "$dry_run" && ((EUID != 0)); then
    die "this needs root: sudo $0 (or try it with --root DIR or --dry-run)"
  fi
}

staged() { [[ -n $root ]]; }

# Whether systemd runs here and is ours to ask.
live() { ! staged && [[ -d /run/systemd/system ]]; }

has_account() { getent passwd "$account" >/dev/null; }

# own OWNER:GROUP MODE PATH: in a staged tree there is no such user; systemd-tmpfiles sets it at boot.
own() {
  if ! staged; then chown -- "$1" "$3"; fi
  chmod -- "$2" "$3"
}

# One script at a time works on a tree. The lock is on a folder that is there anyway, so that none stays
# behind, and the kernel lets go of it with the process.
lock() {
  if "$dry_run"; then return 0; fi
  exec 9<"${root:-/opt}"
  flock --nonblock 9 || die "another install or uninstall is at work in ${root:-this machine}"
}

remove_empty() { rmdir --ignore-fail-on-non-empty -- "$@" 2>/dev/null || true; }

# Names of the engines that systemd knows of, running or not.
engine_instances() {
  systemctl list-units --all --plain --no-legend 'distconv-engine@*.service' | awk '{print $1}'
}

running_units() {
  local unit
  for unit in distconv-dispatch.socket distconv-dispatch.service $(engine_instances); do
    if systemctl --quiet is-active "$unit"; then printf '%s\n' "$unit"; fi
  done
}
