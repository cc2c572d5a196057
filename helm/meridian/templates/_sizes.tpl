{{/* A size of the configuration (1GiB, 512KiB, 64MB, 17) or of Kubernetes (50Gi, 512Mi, 1G) in whole MiB, rounded down. */}}
{{- define "meridian.mebibytes" -}}
{{- $text := toString . | trim -}}
{{- $number := regexFind "^[0-9]+" $text | int64 -}}
{{- $unit := regexFind "[A-Za-z]*$" $text | trimSuffix "B" | trimSuffix "b" -}}
{{- $units := dict "" 1 "K" 1000 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- if not (hasKey $units $unit) }}{{ fail (printf "%q is no size" $text) }}{{ end -}}
{{- div (mul $number (get $units $unit | int64)) 1048576 -}}
{{- end }}

{{/*
What the process may take, in MiB: the hot objects and as much again (the bound is overstepped by a quarter under a storm
of writes, and memory is fragmented), what ops may hold while they wait, the newest part of the log, and 512 MiB for the
store's buffers and compaction, connections and the program. Measured: 256 MiB of objects, written as fast as clients
could for minutes, took 994 MiB at most.
*/}}
{{- define "meridian.memoryLimit" -}}
{{- $objects := include "meridian.mebibytes" .Values.config.store.memoryMax | int64 -}}
{{- $pending := include "meridian.mebibytes" .Values.config.limits.pendingMax | int64 -}}
{{- $tail := include "meridian.mebibytes" .Values.config.limits.tailCache | int64 -}}
{{- add (mul $objects 2) $pending $tail 512 -}}
{{- end }}

{{- define "meridian.resources" -}}
{{- $least := include "meridian.memoryLimit" . | int64 -}}
{{- $objects := include "meridian.mebibytes" .Values.config.store.memoryMax | int64 -}}
{{- $limit := .Values.resources.limits.memory -}}
{{- if $limit }}
{{- if le (include "meridian.mebibytes" $limit | int64) $objects }}
{{- fail (printf "resources.limits.memory (%s) is no more than config.store.memoryMax (%s): the region would be killed; leave it empty for %dMi" $limit .Values.config.store.memoryMax $least) }}
{{- end }}
{{- end -}}
{{- $request := .Values.resources.requests.memory }}
{{- $bound := $limit | default (printf "%dMi" $least) }}
{{- if and $request (gt (include "meridian.mebibytes" $request | int64) (include "meridian.mebibytes" $bound | int64)) }}
{{- fail (printf "resources.requests.memory (%s) is more than the limit (%s)" $request $bound) }}
{{- end }}
requests:
  {{- with .Values.resources.requests.cpu }}
  cpu: {{ . | quote }}
  {{- end }}
  memory: {{ $request | default (printf "%dMi" (add $objects 512)) | quote }}
limits:
  {{- with .Values.resources.limits.cpu }}
  cpu: {{ . | quote }}
  {{- end }}
  memory: {{ $bound | quote }}
{{- end }}
