#!/usr/bin/env bash
# Removes DistConv from this machine: stops and disables it, keeps a copy of configuration and state if
# wanted, removes its files and units, and its user if wanted.
#
# It asks before it removes what cannot be recreated: finished results in the media store, and the user, who
# may own other files. Each removal first checks what exists, so the next run completes an interrupted one.

set -Eeuo pipefail

here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
# shellcheck source=contrib/common.sh
source "$here/common.sh"

help() {
  cat <<'TEXT'
usage: uninstall.sh [OPTION]...

Stops and removes DistConv. On a terminal it asks whether to keep a copy of configuration and state,
what to do with finished results, and whether to remove the user `distconv`.

  --backup FILE  write configuration and state to FILE (.tar.gz) first, without asking
  --yes          ask nothing: make a backup, keep results and the user
  --purge        ask nothing and remove everything: no backup; results and the user, too
  --dry-run      print each step and change nothing
  --root DIR     remove a tree staged by install.sh below DIR: no user, no systemctl
  --help

examples:
  sudo /opt/distconv/current/share/distconv/uninstall.sh
  sudo contrib/uninstall.sh --yes --backup /root/distconv.tar.gz
  sudo contrib/uninstall.sh --purge

To restore a backup FILE, install again, move the new state away and unpack FILE:
  sudo systemctl stop 'distconv-*'
  sudo mkdir /var/lib/distconv.fresh /var/lib/distconv-engine.fresh
  sudo find /var/lib/distconv -mindepth 1 -maxdepth 1 -not -name distconv-media -exec mv -t /var/lib/distconv.fresh {} +
  sudo find /var/lib/distconv-engine -mindepth 1 -maxdepth 1 -exec mv -t /var/lib/distconv-engine.fresh {} +
  sudo tar -C / -xzf FILE
  sudo systemctl daemon-reload
  sudo systemctl start distconv-dispatch

Exit codes: 0 done, 1 failed (if the backup failed, nothing was removed; if removing had begun, run it again
to continue), 2 wrong usage.
TEXT
}

backup=""
asking=true
purging=false
keep_results=true
remove_account=false

parse() {
  while (($#)); do
    case $1 in
      --help | -h) help && exit 0 ;;
      --yes) asking=false ;;
      --purge) purging=true ;;
      --dry-run) dry_run=true ;;
      --backup | --root)
        [[ -n ${2:-} ]] || wrong_usage "$1 needs a value"
        if [[ $1 == --root ]]; then root=$2; else backup=$(realpath -m -- "$2"); fi
        shift
        ;;
      *) wrong_usage "unknown option $1" ;;
    esac
    shift
  done
  if "$purging" && [[ -n $backup ]]; then wrong_usage "--purge makes no backup, so it takes no --backup"; fi
}

# ask QUESTION DEFAULT(y or n)
ask() {
  local answer hint="[y/N]"
  if [[ $2 == y ]]; then hint="[Y/n]"; fi
  while true; do
    read -r -p "$1 $hint " answer || die "no answer; nothing was changed"
    case ${answer:-$2} in
      [Yy] | [Yy]es) return 0 ;;
      [Nn] | [Nn]o) return 1 ;;
    esac
  done
}

decide() {
  local default
  default=/var/backups/distconv-$(date -u +%Y%m%dT%H%M%SZ).tar.gz
  if "$purging"; then
    keep_results=false && remove_account=true
    return 0
  fi
  if ! "$asking" || "$dry_run"; then
    backup=${backup:-$root$default}
    return 0
  fi
  [[ -t 0 ]] || die "there is no terminal for questions: give --yes or --purge"
  if [[ -z $backup ]] && ask "Keep a copy of configuration and state in $default?" y; then
    backup=$root$default
  fi
  if has_results && ask "Remove the finished results in $state/distconv-media as well?" n; then
    keep_results=false
  fi
  if ! staged && ! keeps_results && ask "Remove the user $account?" n; then remove_account=true; fi
}

has_results() { [[ -n $(find "$root$state/distconv-media" -type f -print -quit 2>/dev/null) ]]; }

keeps_results() { "$keep_results" && has_results; }

# --------------------------------------------------------------------------------------- the steps

step_stop() {
  if ! live; then note "systemd does not run here" && return 0; fi
  local unit all enabled=() running=()
  mapfile -t all < <(known_units)
  if ((${#all[@]} == 0)); then note "no units found" && return 0; fi
  for unit in "${all[@]}"; do
    if systemctl --quiet is-enabled "$unit" 2>/dev/null; then enabled+=("$unit"); fi
  done
  mapfile -t running < <(running_units)
  # If the backup fails, nothing is removed, and the service goes on.
  if ((${#running[@]})); then on_failure systemctl start "${running[@]}"; fi
  if ((${#enabled[@]})); then on_failure systemctl --quiet enable "${enabled[@]}"; fi
  change systemctl --quiet disable "${all[@]}"
  # The socket goes first: it would start the daemon again.
  change systemctl stop "${all[@]}"
}

known_units() {
  local unit
  for unit in distconv-dispatch.socket distconv-dispatch.service; do
    if [[ -e $root$unit_dir/$unit ]]; then printf '%s\n' "$unit"; fi
  done
  if [[ -e $root$unit_dir/distconv-engine@.service ]]; then
    printf '%s\n' distconv-engine@1.service
    engine_instances
  fi | sort -u
}

step_backup() {
  if [[ -z $backup ]]; then note "not wanted" && return 0; fi
  local kept=() place
  for place in "$root$etc" "$root$state" "$root$engine_state" "$root$unit_dir"/distconv-*.d \
    "$root$unit_dir"/distconv-*.old*; do
    if [[ -e $place ]]; then kept+=("${place#"$root/"}"); fi
  done
  if ((${#kept[@]} == 0)); then note "there is nothing to keep" && return 0; fi
  if [[ ! -d $(dirname -- "$backup") ]]; then on_failure remove_empty "$(dirname -- "$backup")"; fi
  on_failure rm -f -- "$backup.part"
  change mkdir -p -- "$(dirname -- "$backup")"
  # It contains keys. Results and unfinished outputs are not state, and may be terabytes.
  (umask 077 && change tar -C "${root:-/}" --exclude="${state#/}/distconv-media" \
    --exclude="${state#/}/before-upgrade*" --exclude="${engine_state#/}/*/attempts" \
    -czf "$backup.part" "${kept[@]}")
  # An existing one may be from a run that was killed half-way: it has files that this one lacks.
  change mv --backup=numbered -T -- "$backup.part" "$backup"
}

step_units() {
  local unit place
  for unit in "${units[@]}"; do
    remove "$unit_dir/$unit" "$unit_dir/$unit.d"
    # The original's unit, which has the same name, or one that was changed by hand.
    for place in "$root$unit_dir/$unit".old*; do
      if "$purging"; then
        remove "${place#"$root"}"
      elif [[ -e $place ]]; then
        note "$place stays: install.sh found it here"
      fi
    done
  done
  for place in "$root$unit_dir"/distconv-engine@*.service.d \
    "$root$unit_dir"/*.wants/distconv-{dispatch.service,dispatch.socket,engine@*.service}; do
    remove "${place#"$root"}"
  done
  remove /etc/sysusers.d/distconv.conf /etc/tmpfiles.d/distconv.conf
  if live; then
    change systemctl daemon-reload
    change systemctl reset-failed 'distconv-*'
  fi
}

step_programs() {
  local name link
  for name in "${commands[@]}"; do
    link=$command_dir/$name
    if [[ $(readlink -- "$root$link") == "$prefix"/* ]]; then remove "$link"; fi
  done
  # Anything else (the original is in $prefix/server) is not ours.
  remove "$prefix"/{current,current.new,previous,previous.new,roles,roles.part,written,written.part,releases}
  if [[ -d $root$prefix ]]; then
    change rmdir --ignore-fail-on-non-empty -- "$root$prefix"
  fi
}

step_data() {
  remove "$etc" "$etc.part" "$engine_state" "$engine_state.part" "$state.part"
  if keeps_results; then
    note "the results stay in $state/distconv-media"
    if [[ -d $root$state ]]; then
      change find "$root$state" -mindepth 1 -maxdepth 1 -not -name distconv-media \
        -exec rm -rf -- {} +
    fi
  else
    remove "$state"
  fi
}

step_account() {
  if staged; then note "a staged tree has none" && return 0; fi
  if ! "$remove_account"; then note "$account stays" && return 0; fi
  if has_account; then change userdel "$account"; fi
  if getent group "$account" >/dev/null; then change groupdel "$account"; fi
}

# remove PATH…: removes paths of the tree; a missing one is not an error.
remove() {
  local path
  for path in "$@"; do
    if [[ -e $root$path || -L $root$path ]]; then change rm -rf -- "${root}${path:?}"; fi
  done
}

main() {
  parse "$@"
  check_root
  if staged && [[ ! -d $root ]]; then die "--root $root: there is no such folder"; fi
  cd /
  decide
  catch_the_end
  lock
  step stop "Stop and disable the units"
  step backup "Keep a copy of configuration and state"
  no_way_back "run it again to continue"
  step units "Remove the units"
  step programs "Remove the programs"
  step data "Remove configuration and state"
  step account "Remove the system user $account"
  say
  if "$dry_run"; then say "Nothing was changed." && return 0; fi
  say "DistConv is removed${root:+ from $root}."
  if [[ -n $backup && -e $backup ]]; then say "  Configuration and state are in $backup"; fi
}

main "$@"
