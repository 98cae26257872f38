# Helpers of dev/run: the processes of a cloud, started, watched and ended. Read with `source`, never run.
# shellcheck shell=bash
#
# Expects STATE (the state folder), RUN (a folder in it for pids and ports), BIN (the programs) and LOG.

SERVICES=() # those that this run started, in the order of their start
declare -A PID ADDRESS LOGGER
# All that there may be, in the order of their start. They end in reverse: hosts report to the conductor what they have
# in hand.
ALL_SERVICES=(nova-all nova-api nova-scheduler nova-conductor nova-network nova-volume nova-consoleauth nova-novncproxy nova-compute-1 nova-compute-2)

# Settings for the proxy of consoles: Nova's port, or a free one where the API has another than Nova's, too.
console_settings() {
  [ -n "${NOVA_PORT:-}" ] || [ -s "$RUN/console.port" ] || echo 6080 >"$RUN/console.port"
  pick_port "$RUN/console.port"
  local port; port=$(cat "$RUN/console.port")
  printf '\n[vnc]\nnovncproxy_port = %s\nnovncproxy_base_url = http://127.0.0.1:%s/vnc_auto.html\n' "$port" "$port"
  printf '\n[serial_console]\nbase_url = ws://127.0.0.1:%s/\n' "$port"
  printf '\n[spice]\nhtml5proxy_base_url = http://127.0.0.1:%s/spice_auto.html\n' "$port"
}

# Settings for volumes: a socket's path may have 107 characters at most, so a long state folder needs another one for them.
volume_settings() {
  local run; run=$(volume_run_dir)
  [ "$run" = "$STATE/volume-run" ] || printf '\n[volume_driver]\nrun_path = %s\n' "$run"
}
volume_run_dir() {
  if [ ${#STATE} -le 69 ]; then printf '%s/volume-run\n' "$STATE"; else printf '/tmp/nova-dev-%s/volume-run\n' "$(hash_of "$STATE")"; fi
}

# Ends the daemons that serve volumes, which outlive the services: guests use them.
end_volume_daemons() {
  local run f; run=$(volume_run_dir)
  for f in "$run"/*.pid; do
    [ -e "$f" ] || continue
    is_running "$(cat "$f")" "$f" || continue
    step "ending a daemon that serves volumes, pid $(cat "$f")"
    # tgtd does not listen to a gentle word while it has targets.
    end_process "$(cat "$f")" "$f" 2 || true
  done
  rm -rf "$run"
}

pid_of() { cat "$RUN/$1.pid" 2>/dev/null || true; }
# Every service has a file of the state folder in its command line.
service_runs() { is_running "$1" "--config-file $STATE/"; }

# The first service of an earlier start that still runs: prints "NAME PID".
find_service() {
  local name
  for name in "${ALL_SERVICES[@]}"; do
    if service_runs "$(pid_of "$name")"; then printf '%s %s\n' "$name" "$(pid_of "$name")"; return 0; fi
  done
  return 1
}

rotate_log() {
  [ ! -s "$LOG" ] || mv -f "$LOG" "$LOG.1"
  : >"$LOG"
}

# Start a program. Its lines go to LOG, behind PREFIX. A session of its own: Ctrl-C is for us, and we end it in order.
start_service() { # NAME ADDRESS PREFIX PROGRAM ARGUMENTS...
  local name=$1 prefix=$3 program=$4 out
  ADDRESS[$name]=$2; shift 4
  exec {out}> >(exec setsid sed -u "s/^/$prefix/" >>"$LOG")
  LOGGER[$name]=$!
  setsid "$BIN/$program" "$@" </dev/null >&"$out" 2>&1 &
  PID[$name]=$!
  exec {out}>&-
  SERVICES+=("$name")
  printf '%s\n' "${PID[$name]}" >"$RUN/$name.pid"
}

# What a service that ended wrote last is in LOG once the one that writes it there has ended too.
forget_service() { # NAME
  local kept=() name i
  for ((i = 0; i < 20; i++)); do is_running "${LOGGER[$1]}" sed || break; sleep 0.1; done
  for name in "${SERVICES[@]}"; do [ "$name" = "$1" ] || kept+=("$name"); done
  SERVICES=("${kept[@]}")
  rm -f "$RUN/$1.pid"
}

show_log() { # [PREFIX]: the last lines, of one service or of all
  grep -v '^$' "$LOG" | grep -- "^${1:-}" | tail -n 15 | sed 's/^/  | /' >&2 || true
}

wait_healthy() { # NAME
  local host=${ADDRESS[$1]%:*} port=${ADDRESS[$1]##*:} i
  for ((i = 0; i < 600; i++)); do
    [ "$(http_status "$host" "$port" /healthz 2>/dev/null || true)" != 200 ] || return 0
    if ! service_runs "${PID[$1]}"; then
      forget_service "$1"
      note "$ME: $1 ended at its start; the last lines of $LOG:"; show_log "$(prefix_of "$1")"
      exit 1
    fi
    sleep 0.1
  done
  note "$ME: $1 is not healthy after 60 s; the last lines of $LOG:"; show_log "$(prefix_of "$1")"
  exit 1
}

# Returns when a service has ended, which none does by itself.
watch_services() {
  local ended='' name
  wait -n -p ended "${PID[@]}" || true
  for name in "${SERVICES[@]}"; do
    [ "${PID[$name]}" = "$ended" ] || continue
    forget_service "$name"
    note "$ME: $name ended by itself; the last lines of $LOG:"; show_log "$(prefix_of "$name")"
  done
}

# Longer than DEFAULT.graceful_shutdown_timeout: with nothing in hand a service ends at once.
end_service() { # NAME
  end_process "$(pid_of "$1")" "--config-file $STATE/" 70 || note "$ME: $1 did not stop within 70 s and was killed"
  rm -f "$RUN/$1.pid"
}

# Ends those that this run started.
end_services() {
  local i
  for ((i = ${#SERVICES[@]} - 1; i >= 0; i--)); do end_service "${SERVICES[i]}"; done
  SERVICES=()
}

# Ends those of an earlier start, whoever left them.
end_found_services() {
  local i name
  for ((i = ${#ALL_SERVICES[@]} - 1; i >= 0; i--)); do
    name=${ALL_SERVICES[i]}
    service_runs "$(pid_of "$name")" || continue
    step "stopping $name, pid $(pid_of "$name")"
    end_service "$name"
  done
}
