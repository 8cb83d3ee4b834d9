# Sourced by scripts that run a cluster of real processes under `bench replay`; not run by itself.
#
# Sets `binary` (BINARY, or built with the profile that the caller set in `profile`) and `work`, a
# directory that goes when the script ends, and with it every process that was started.

if [ -z "${BINARY:-}" ]; then
  if [ "${profile:?}" = debug ]; then cargo build -p switchboard; else cargo build --release -p switchboard; fi
  BINARY=${CARGO_TARGET_DIR:-target}/$profile/switchboard
fi
binary=$(realpath "$BINARY")
unset SWITCHBOARD_STORE SWITCHBOARD_GATEWAY SWITCHBOARD_OUTPUT
work=$(mktemp -d)
declare -A pid_of=()

clean_up() {
  [ ${#pid_of[@]} = 0 ] || kill -9 "${pid_of[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 1' INT TERM

fail() {
  echo "$*" >&2
  exit 1
}

# start NAME COMMAND…: a process whose lines go to a file of its name.
start() {
  local name=$1
  shift
  # What the one before said must not be taken for this one's.
  : >"$work/$name.out"
  "$@" >"$work/$name.out" 2>"$work/$name.err" &
  pid_of[$name]=$!
}

# wait_for NAME TEXT: until the process has printed it.
wait_for() {
  for _ in $(seq 1200); do
    ! grep -q "$2" "$work/$1.out" || return 0
    sleep 0.1
  done
  tail -20 "$work/$1.err" >&2
  fail "$1 does not say \`$2\`"
}

# stop NAME: in order, as a supervisor does.
stop() {
  kill "${pid_of[$1]}"
  wait "${pid_of[$1]}" || fail "$1 did not end in order"
  unset "pid_of[$1]"
}

# kill_store NODE: as a crash does.
kill_store() {
  kill -9 "${pid_of[store-$1]}"
  wait "${pid_of[store-$1]}" 2>/dev/null || true
  unset "pid_of[store-$1]"
}

# The address that a process has bound.
listening() { sed -n "s/^listening $2 //p" "$work/$1.out"; }
address() { listening "store-$1" store-grpc; }

# start_store NODE [ADDRESS]: on an address of its own, or the one that it had; it waits for its cluster. Its
# segments have `segment_bytes`, where that is set.
start_store() {
  start "store-$1" env ${segment_bytes:+SWITCHBOARD_SEGMENT_BYTES="$segment_bytes"} "$binary" store \
    --node-id "$1" --data "$work/data-$1" --listen "${2:-127.0.0.1:0}" --http 127.0.0.1:0
  wait_for "store-$1" "listening store-http"
}

# start_cluster SHARDS: nodes 1, 2 and 3, a chat and a gateway; operators ask any of the `stores`.
start_cluster() {
  for node in 1 2 3; do start_store "$node"; done
  stores=$(address 1),$(address 2),$(address 3)
  "$binary" cluster init --store "$(address 1)" --shards "$1" \
    --peers "1=$(address 1),2=$(address 2),3=$(address 3)"
  for node in 1 2 3; do wait_for "store-$node" '^ready'; done
  start chat "$binary" chat --store "$stores" --name chat-1 --listen 127.0.0.1:0 --http 127.0.0.1:0
  start gateway "$binary" gateway --store "$stores" --name gateway-1 --listen 127.0.0.1:0 \
    --listen-tcp 127.0.0.1:0 --listen-ws 127.0.0.1:0 --http 127.0.0.1:0
  wait_for chat '^ready'
  wait_for gateway '^ready'
}

# conversations SECONDS: of 30 users, for so long at twice their speed.
conversations() {
  awk -v messages="$((2 * $1))" 'BEGIN {
    for (c = 0; c < 40; c++) for (n = 0; n < messages; n++) {
      one = c % 30; other = (one + 1 + int(c / 30) + c % 7) % 30
      from = int(n / (1 + c % 3)) % 2 ? other : one; to = one + other - from
      printf "{\"conversation\":\"c%d\",\"n\":%d,\"at\":%d,\"from\":\"user-%d\",\"to\":\"user-%d\",", c, n, n, from, to
      printf "\"text\":\"message %d of conversation %d\"}\n", n, c
    }
  }' >"$work/conversations.jsonl"
}

# start_replay SEED: of these conversations, each user offline for 30 % of the time.
start_replay() {
  start replay "$binary" bench replay "$work/conversations.jsonl" --speedup 2 --offline-mean 2 \
    --drain-timeout 120 --seed "$1" --gateway "$(listening gateway gateway-tcp)" \
    --json "$work/report.json"
}

# Fails unless conversations are still under way: what was done without them has shown nothing.
still_replaying() {
  kill -0 "${pid_of[replay]}" 2>/dev/null || fail "the conversations were too short"
}

# Waits for the replay; fails if anything was lost, out of order, shown twice or changed.
end_replay() {
  local status=0
  wait "${pid_of[replay]}" || status=$?
  unset "pid_of[replay]"
  cat "$work/report.json" 2>/dev/null || true
  [ "$status" = 0 ] || { tail -30 "$work/replay.err" >&2; fail "the replay failed"; }
}

began=$SECONDS
say() { echo "$((SECONDS - began)) s: $*"; }
