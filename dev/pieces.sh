# Helpers of dev/run for DEPLOYMENT=pieces: a process per service, on RabbitMQ and PostgreSQL, and two compute hosts.
# Read with `source`, never run.
# shellcheck shell=bash
#
# Files of the state folder, beside those that `make run` always makes:
#   nova.conf, compute.conf           settings of the control services and of the hosts: the user's from the first start on
#   servers.conf, compute-N.conf      written at every start: where broker, database and libvirt are this time
#   compute-1, compute-2              the state folders of the hosts

# PostgreSQL refuses to run as root, and the user that it runs as then can't enter a home folder, where the state folder
# mostly is. So broker and database lie elsewhere, in a place that a restart of the machine does not empty.
servers_dir() {
  if [ "$(id -u)" = 0 ]; then printf '/var/lib/nova-run-%s\n' "$(hash_of "$STATE")"; else printf '%s/servers\n' "$STATE"; fi
}

pieces_settings() {
  LOG=$STATE/nova.log
  DRIVER_CONF=$STATE/compute.conf
  SERVERS=$(servers_dir)
  LIBVIRT_DIRS=("$LIBVIRT_DIR-1" "$LIBVIRT_DIR-2")
  LIBVIRT_NAMES=(compute-1 compute-2)
  FEATURES=amqp,postgres
}

pieces_prefix() { printf '%-14s | ' "$1"; }

pieces_packages() {
  "$ROOT/dev/packages" rabbitmq postgresql || die 3 "DEPLOYMENT=pieces can't run without RabbitMQ and PostgreSQL"
  "$ROOT/dev/packages" volumes || note "$ME: without these, volumes are made and no server can have them"
}

pieces_write_conf() {
  if [ ! -s "$DRIVER_CONF" ]; then
    {
      echo "# What the compute hosts share. Written by 'make run' at its first start, kept from then on. No host is told of the"
      echo "# database: it has no business there."
      printf '\n[DEFAULT]\ncompute_driver = %s\n' "$DRIVER"
      printf '\n# Where images come from.\n[api]\nlisten = %s\n' "$LISTEN"
      [ "$DRIVER" != libvirt ] || printf '\n[libvirt]\nvirt_type = qemu\n'
    } >"$DRIVER_CONF"
  fi
  [ -s "$CONF" ] || {
    echo "# Written by 'make run' at its first start, kept from then on. 'nova-manage config sample' lists every option."
    printf '\n[DEFAULT]\nstate_path = %s\n' "$STATE"
    printf '\n[api]\nlisten = %s\n' "$LISTEN"
    console_settings
    volume_settings
  } >"$CONF"
}

# Ports of servers and sockets of libvirt may differ from start to start.
pieces_write_places() {
  local n
  {
    echo "# Where broker and database are. Written by 'make run' at every start."
    printf '\n[DEFAULT]\ntransport_url = %s\n\n[database]\nconnection = %s\n' "$TRANSPORT_URL" "$DATABASE_URL"
  } >"$STATE/servers.conf"
  for n in 1 2; do
    {
      echo "# What is this host's own. Written by 'make run' at every start."
      printf '\n[DEFAULT]\nhost = compute-%s\nstate_path = %s/compute-%s\n' $n "$STATE" $n
      printf 'transport_url = %s\n' "$TRANSPORT_URL"
      [ "$DRIVER" != libvirt ] || printf '\n[libvirt]\nconnection_uri = %s\n' "${URIS[n - 1]}"
    } >"$STATE/compute-$n.conf"
  done
}

pieces_start_servers() {
  local broker
  # The database's user must be able to pass.
  [ -d "$SERVERS" ] || mkdir -m 711 "$SERVERS"
  "$ROOT/dev/rabbitmq" start "$SERVERS/rabbitmq" >"$RUN/broker" &
  broker=$!
  DATABASE_URL=$("$ROOT/dev/postgresql" start "$SERVERS/postgresql") || die 1 'PostgreSQL does not run'
  wait $broker || die 1 'RabbitMQ does not run'
  TRANSPORT_URL=$(cat "$RUN/broker")
  step "RabbitMQ and PostgreSQL run, private ones in $SERVERS"
}

pieces_stop_servers() {
  [ -d "$SERVERS" ] || return 0
  "$ROOT/dev/rabbitmq" stop "$SERVERS/rabbitmq" &
  "$ROOT/dev/postgresql" stop "$SERVERS/postgresql" || true
  wait $! || true
}

pieces_remove_servers() {
  [ -d "$SERVERS" ] || return 0
  step 'removing RabbitMQ and PostgreSQL'
  pieces_stop_servers
  rm -rf "$SERVERS"
}

# A service without an API shows its health on a port of its own.
start_piece() { # NAME PROGRAM ARGUMENTS...
  local name=$1 program=$2; shift 2
  pick_port "$RUN/$name.port"
  local address; address=127.0.0.1:$(cat "$RUN/$name.port")
  start_service "$name" "$address" "$(pieces_prefix "$name")" "$program" "$@" --set "health.listen=$address"
}

pieces_start() {
  local control=(--config-file "$CONF" --config-file "$STATE/servers.conf") shared=(--config-file "$DRIVER_CONF") n name
  pieces_start_servers
  pieces_write_places
  "$BIN/nova-manage" "${control[@]}" db sync 2>&1 | sed "s/^/$(pieces_prefix nova-manage)/" >>"$LOG" ||
    { show_log; die 1 "the database's schema can't be made"; }
  start_service nova-api "$(local_address)" "$(pieces_prefix nova-api)" nova-api "${control[@]}"
  start_piece nova-scheduler nova-scheduler "${control[@]}"
  start_piece nova-conductor nova-conductor "${control[@]}"
  start_piece nova-network nova-network "${control[@]}"
  start_piece nova-volume nova-volume "${control[@]}"
  start_piece nova-consoleauth nova-consoleauth "${control[@]}"
  start_piece nova-novncproxy nova-novncproxy "${control[@]}"
  for n in 1 2; do start_piece nova-compute-$n nova-compute "${shared[@]}" --config-file "$STATE/compute-$n.conf"; done
  for name in "${SERVICES[@]}"; do wait_healthy "$name"; done
  step "all services are healthy: ${SERVICES[*]}"
  step "the API is at http://$(local_address), the log of all services in $LOG"
}
