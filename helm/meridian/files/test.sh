# A region that is ready, and answers its clients: host, port, admin address, role, file of the password.
set -eu
host=$1 port=$2 admin=$3 role=$4 password=$5
if [ -n "$password" ]; then
  REDISCLI_AUTH=$(cat "$password")
  export REDISCLI_AUTH
fi
redis() { redis-cli -e --no-auth-warning -h "$host" -p "$port" "$@"; }

echo "ready: $(wget -q -O - "$admin/readyz")"
[ "$(redis PING)" = PONG ]
if [ "$role" = leader ]; then
  key="meridian:helm-test:$(hostname)"
  [ "$(redis SET "$key" written EX 60)" = OK ]
  [ "$(redis GET "$key")" = written ]
  [ "$(redis DEL "$key")" = 1 ]
fi
echo "digest: $(redis MERIDIAN.DIGEST)"
