# Sends SIGHUP to the proxy when the kubelet has swapped what lies behind $1, looking every $2 seconds.
hang_up() {
  sent=1
  for process in /proc/[0-9]*; do
    if read -r name < "$process/comm" && [ "$name" = meridian ]; then
      kill -HUP "${process#/proc/}" && sent=0
    fi
  done 2>/dev/null
  return $sent
}
seen=$(readlink "$1/..data")
while sleep "$2"; do
  now=$(readlink "$1/..data")
  if [ "$now" != "$seen" ] && hang_up; then
    seen=$now
    echo "the configuration has changed: sent SIGHUP"
  fi
done
