# Sends SIGHUP to the proxy when the kubelet has swapped what lies behind one of the directories, looking every $1 seconds.
seconds=$1
shift
behind() {
  for directory in "$@"; do
    readlink "$directory/..data"
  done
}
hang_up() {
  sent=1
  for process in /proc/[0-9]*; do
    if read -r name < "$process/comm" && [ "$name" = meridian ]; then
      kill -HUP "${process#/proc/}" && sent=0
    fi
  done 2>/dev/null
  return $sent
}
seen=$(behind "$@")
while sleep "$seconds"; do
  now=$(behind "$@")
  if [ "$now" != "$seen" ] && hang_up; then
    seen=$now
    echo "the configuration has changed: sent SIGHUP"
  fi
done
