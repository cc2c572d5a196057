# Sends SIGHUP to the proxy when the kubelet has swapped what lies behind $1, looking every $2 seconds.
seen=$(readlink "$1/..data")
while sleep "$2"; do
  now=$(readlink "$1/..data")
  [ "$now" = "$seen" ] && continue
  if pkill -HUP -x meridian; then
    seen=$now
    echo "the configuration has changed: sent SIGHUP"
  fi
done
