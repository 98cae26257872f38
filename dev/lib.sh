# Helpers that the scripts of this folder share. Read with `source`, never run.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
ME=${0##*/}

say() { printf '%s\n' "$*"; }
note() { printf '%s\n' "$*" >&2; }
die() { # CODE TEXT...
  local code=$1; shift
  note "$ME: $*"; exit "$code"
}

# Short, stable name of a path: tells the private folders of several clones apart.
hash_of() { printf '%s' "$1" | sha256sum | cut -c1-10; }

# Where everything goes that tests and private servers write. Not under the checkout: socket paths are limited to
# 107 characters, and some servers run as a user of their own, who can't enter a home folder.
dev_dir() {
  local d; d=/tmp/nova-dev-$(hash_of "$ROOT")
  [ -d "$d" ] || mkdir -m 755 "$d"
  # /tmp is everybody's: someone else may have made a folder of this name first.
  if [ ! -O "$d" ] || [ -L "$d" ]; then die 1 "$d belongs to someone else"; fi
  printf '%s\n' "$d"
}

# Is PID a live process (a zombie is not) whose command line holds TEXT?
is_running() { # PID TEXT
  [ -n "${1:-}" ] && [ -r "/proc/$1/cmdline" ] || return 1
  # It may end between any two of these.
  { ! grep -q '^State:.Z' "/proc/$1/status" && tr '\0' ' ' <"/proc/$1/cmdline" | grep -qF -- "$2"; } 2>/dev/null
}

# End one process that we started: SIGTERM, SECONDS of patience, then SIGKILL. Returns 1 if it had to be killed.
end_process() { # PID TEXT SECONDS
  local i
  is_running "$1" "$2" || return 0
  kill "$1" 2>/dev/null || return 0
  for ((i = 0; i < $3 * 10; i++)); do
    is_running "$1" "$2" || return 0
    sleep 0.1
  done
  kill -9 "$1" 2>/dev/null
  return 1
}

# Seconds since the epoch with a fraction, and the difference to an earlier reading in one decimal.
now() { printf '%s' "${EPOCHREALTIME/,/.}"; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }'; }

# GET http://HOST:PORT/PATH without curl, which a bare machine does not have. Prints the status code, or nothing.
http_status() { # HOST PORT PATH
  local status
  { exec 7<>"/dev/tcp/$1/$2"; } 2>/dev/null || return 1
  printf 'GET %s HTTP/1.0\r\nHost: %s:%s\r\n\r\n' "$3" "$1" "$2" >&7
  IFS=' ' read -r -t 5 -u 7 _ status _ || status=
  exec 7>&- 7<&-
  printf '%s' "$status"
}

# Who listens on a TCP port of this machine: prints "PID NAME", or "? ?" when it can't be seen; returns 1 if nobody.
port_owner() { # PORT
  local inode fd pid
  inode=$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
    awk -v p="$(printf '%04X' "$1")" '$4 == "0A" && substr($2, length($2) - 3) == p { print $10; exit }')
  [ -n "$inode" ] || return 1
  for fd in /proc/[0-9]*/fd/*; do
    [ "$(readlink "$fd" 2>/dev/null)" = "socket:[$inode]" ] || continue
    pid=${fd#/proc/}; pid=${pid%%/*}
    printf '%s %s\n' "$pid" "$(cat "/proc/$pid/comm")"; return 0
  done
  printf '? ?\n'
}

# Note a free port of this machine in FILE. One that is noted already stays as long as nobody else took it.
pick_port() { # FILE
  local port i
  port=$(cat "$1" 2>/dev/null) || port=''
  for ((i = 0; i < 200; i++)); do
    # Below the range from which the kernel gives ports to clients.
    [ -n "$port" ] || port=$((15000 + RANDOM % 15000))
    if ! port_owner "$port" >/dev/null; then printf '%s\n' "$port" >"$1"; return 0; fi
    port=''
  done
  die 1 'found no free port'
}

# Value of an option in an INI file; empty if it is not there.
ini_get() { # FILE GROUP OPTION
  awk -F ' *= *' -v g="[$2]" -v o="$3" '/^\[/ { in_group = ($0 == g) } in_group && $1 == o { sub(/^[^=]*= */, ""); print; exit }' "$1"
}

# Cargo's target folder, wherever the environment or the configuration puts it.
target_dir() {
  (cd "$ROOT" && cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
}
