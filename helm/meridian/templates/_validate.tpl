{{/* What the schema cannot say, because it takes two keys to see it. `meridian check` says the rest. */}}
{{- define "meridian.validate" -}}
{{- $config := .Values.config }}
{{- $names := list }}
{{- range $config.regions }}{{ $names = append $names .name }}{{ end }}
{{- if ne (len $names) (len (uniq $names)) }}
{{- fail "config.regions: a name is there twice" }}
{{- end }}
{{- if and $names (not (has $config.region $names)) }}
{{- fail (printf "config.region: %q is not among config.regions (%s)" $config.region (join ", " $names)) }}
{{- end }}
{{- $shape := $config.topology.shape }}
{{- if and (gt (len $names) 1) (not $shape) }}
{{- fail "config.topology.shape: required with two or more regions" }}
{{- end }}
{{- if and (eq $shape "ring") (ne (sortAlpha $config.topology.order | join ",") (sortAlpha $names | join ",")) }}
{{- fail "config.topology.order: a ring names each of config.regions once" }}
{{- end }}
{{- if eq $shape "star" }}
{{- range prepend $config.topology.standbyHubs $config.topology.hub }}
{{- if not (has . $names) }}{{ fail (printf "config.topology: hub %q is not among config.regions" .) }}{{ end }}
{{- end }}
{{- end }}
{{- range $pair := $config.topology.feeds }}
{{- range $pair }}
{{- if not (has . $names) }}{{ fail (printf "config.topology.feeds: %q is not among config.regions" .) }}{{ end }}
{{- end }}
{{- end }}
{{- if and (gt (len $names) 1) (not (include "meridian.tlsSecret" .)) (not $config.tls.key) }}
{{- fail "links are always mutual TLS: set tls.existingSecret, or tls.certManager.enabled" }}
{{- end }}
{{- if and .Values.tls.certManager.enabled .Values.tls.existingSecret }}
{{- fail "tls.existingSecret and tls.certManager.enabled exclude each other" }}
{{- end }}
{{- if and .Values.tls.certManager.enabled (not .Values.tls.certManager.issuerRef.name) }}
{{- fail "tls.certManager.issuerRef.name: required" }}
{{- end }}
{{- $certificate := .Values.tls.certManager }}
{{- if le (trimSuffix "h" $certificate.duration | int64) (trimSuffix "h" $certificate.renewBefore | int64) }}
{{- fail (printf "tls.certManager.renewBefore (%s): has to be shorter than duration (%s)" $certificate.renewBefore $certificate.duration) }}
{{- end }}
{{- range $config.conflicts }}
{{- if and (hasPrefix "/etc/meridian/hooks/" (.hook | default "")) (not $.Values.hooks.existingConfigMap) }}
{{- fail (printf "config.conflicts: %s is in a ConfigMap that hooks.existingConfigMap does not name" .hook) }}
{{- end }}
{{- end }}
{{- if hasPrefix "/etc/meridian" (clean $config.dataDir) }}
{{- fail "config.dataDir: below /etc/meridian everything is read-only" }}
{{- end }}
{{- if eq (include "meridian.port" $config.listen.resp) (include "meridian.port" $config.listen.admin) }}
{{- fail "config.listen: resp and admin have the same port" }}
{{- end }}
{{- $loopback := "^(127\\.|\\[::1\\])" }}
{{- if and (not (regexMatch $loopback $config.listen.resp)) (not .Values.auth.existingSecret) (not $config.auth.passwordFile) }}
{{- fail "config.listen.resp is open to the network: set auth.existingSecret (or, in a sidecar, listen on 127.0.0.1:6380)" }}
{{- end }}
{{- if and (eq $config.admin.metrics "token") (not .Values.admin.existingSecret) (or (not $config.admin.tokenFile) .Values.metrics.serviceMonitor.enabled) }}
{{- fail "config.admin.metrics: \"token\" needs a token: set admin.existingSecret" }}
{{- end }}
{{- if and $config.dev.faults (not (regexMatch $loopback $config.listen.admin)) }}
{{- fail "config.dev.faults: only with config.listen.admin on loopback" }}
{{- end }}
{{- if and (eq .Values.mode "statefulset") (regexMatch $loopback $config.listen.admin) }}
{{- fail "config.listen.admin: the kubelet's probes do not reach loopback" }}
{{- end }}
{{- if and (eq .Values.mode "statefulset") (regexMatch $loopback $config.listen.link) (gt (len $names) 1) }}
{{- fail "config.listen.link: other regions do not reach loopback" }}
{{- end }}
{{- if and (eq .Values.mode "sidecar") (not .Values.sidecar.selectorLabels) }}
{{- fail "sidecar.selectorLabels: required in mode sidecar; the labels of the application's pod" }}
{{- end }}
{{- $retention := include "meridian.mebibytes" $config.log.retentionMax | int64 }}
{{- if and (eq .Values.mode "statefulset") (lt (include "meridian.mebibytes" .Values.persistence.size | int64) (mul 2 $retention)) }}
{{- fail (printf "persistence.size (%s) has no room for twice config.log.retentionMax (%s): log and store share the volume" .Values.persistence.size $config.log.retentionMax) }}
{{- end }}
{{- end }}
