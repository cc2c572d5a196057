{{/* One value in TOML. JSON's strings are TOML's; a number came through JSON and is whole. */}}
{{- define "meridian.toml.value" -}}
{{- if kindIs "slice" . -}}
[{{ range $at, $item := . }}{{ if $at }}, {{ end }}{{ include "meridian.toml.value" $item }}{{ end }}]
{{- else if kindIs "string" . -}}
{{ toJson . }}
{{- else if kindIs "bool" . -}}
{{ . }}
{{- else -}}
{{ int64 . }}
{{- end -}}
{{- end }}

{{/* Whether a key is left out: null, "", [] and {}. Zero and false are values. */}}
{{- define "meridian.toml.absent" -}}
{{- if or (kindIs "invalid" .) (and (or (kindIs "string" .) (kindIs "slice" .) (kindIs "map" .)) (empty .)) }}true{{ end -}}
{{- end }}

{{/* The keys of a table that are neither tables nor lists of tables. */}}
{{- define "meridian.toml.keys" -}}
{{- range $key, $value := . }}
{{- if not (include "meridian.toml.absent" $value) }}
{{- if not (or (kindIs "map" $value) (and (kindIs "slice" $value) (kindIs "map" (first $value)))) }}
{{ snakecase $key }} = {{ include "meridian.toml.value" $value }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A configuration as TOML: its keys in snake_case, one level of tables, and one below the items of lists. */}}
{{- define "meridian.toml" -}}
{{- include "meridian.toml.keys" . | trim }}
{{- range $name, $table := . }}
{{- if not (include "meridian.toml.absent" $table) }}
{{- if kindIs "map" $table }}
{{- $keys := include "meridian.toml.keys" $table | trim }}
{{- if $keys }}

[{{ snakecase $name }}]
{{ $keys }}
{{- end }}
{{- else if and (kindIs "slice" $table) (kindIs "map" (first $table)) }}
{{- range $table }}

[[{{ snakecase $name }}]]
{{ include "meridian.toml.keys" . | trim }}
{{- range $key, $inner := . }}
{{- if and (kindIs "map" $inner) (not (include "meridian.toml.absent" $inner)) }}

[{{ snakecase $name }}.{{ snakecase $key }}]
{{ include "meridian.toml.keys" $inner | trim }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The configuration with the paths of what is mounted filled in, as JSON. */}}
{{- define "meridian.config" -}}
{{- $config := deepCopy .Values.config }}
{{- if .Values.auth.existingSecret }}
{{- $_ := set $config.auth "passwordFile" (printf "/etc/meridian/auth/%s" .Values.auth.key) }}
{{- end }}
{{- if .Values.admin.existingSecret }}
{{- $_ := set $config.admin "tokenFile" (printf "/etc/meridian/admin/%s" .Values.admin.key) }}
{{- end }}
{{- if include "meridian.tlsSecret" . }}
{{- $keys := .Values.tls.keys }}
{{- if .Values.tls.certManager.enabled }}{{ $keys = dict "ca" "ca.crt" "cert" "tls.crt" "key" "tls.key" }}{{ end }}
{{- range $name, $file := $keys }}
{{- $_ := set $config.tls $name (printf "/etc/meridian/tls/%s" $file) }}
{{- end }}
{{- end }}
{{- toJson $config }}
{{- end }}

{{/* The file. */}}
{{- define "meridian.configFile" -}}
{{- include "meridian.validate" . -}}
# Rendered by Helm from the values of release {{ .Release.Name }}.
{{ include "meridian.toml" (include "meridian.config" . | fromJson) }}
{{- end }}

{{/* What restarts the pod when it changes: without what a reload puts in force, where there is one. */}}
{{- define "meridian.checksum" -}}
{{- $config := include "meridian.config" . | fromJson }}
{{- if .Values.reload.enabled }}
{{- $_ := unset $config "regions" }}
{{- $_ := unset $config "homes" }}
{{- $_ := unset $config "conflicts" }}
{{- $_ := set $config "topology" (pick $config.topology "healAfter") }}
{{- end }}
{{- toJson $config | sha256sum }}
{{- end }}
