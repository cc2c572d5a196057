{{/*
For the chart of an application that has this one as a dependency in mode sidecar. Each takes the scope `.Subcharts.meridian`:

    initContainers:
      {{- include "meridian.sidecar.containers" .Subcharts.meridian | nindent 8 }}
    volumes:
      {{- include "meridian.sidecar.volumes" .Subcharts.meridian | nindent 8 }}

They are native sidecars: the application starts once the proxy has recovered, and the proxy ends after it. The pod's
own settings are up to the application; "meridian.sidecar.podSecurity" and "meridian.sidecar.annotations" are what it needs.
*/}}
{{- define "meridian.sidecar.containers" -}}
{{- if ne .Values.mode "sidecar" }}{{ fail "meridian.sidecar.containers: set mode: sidecar for the chart meridian" }}{{ end -}}
- restartPolicy: Always
  {{- include "meridian.container" (dict "root" . "data" .Values.sidecar.volumeName) | nindent 2 }}
{{- if .Values.reload.enabled }}
- restartPolicy: Always
  {{- include "meridian.reloader" . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "meridian.sidecar.volumes" -}}
{{- include "meridian.volumes" . }}
{{- end }}

{{- define "meridian.sidecar.podSecurity" -}}
{{- include "meridian.podSecurity" . }}
{{- end }}

{{- define "meridian.sidecar.annotations" -}}
meridian/config-checksum: {{ include "meridian.checksum" . }}
{{- end }}

{{/* For volumeClaimTemplates. */}}
{{- define "meridian.sidecar.volumeClaim" -}}
{{- include "meridian.volumeClaim" (dict "root" . "name" .Values.sidecar.volumeName) }}
{{- end }}

{{- define "meridian.volumeClaim" -}}
metadata:
  name: {{ .name }}
  {{- with .root.Values.persistence.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  accessModes:
    {{- toYaml .root.Values.persistence.accessModes | nindent 4 }}
  {{- with .root.Values.persistence.storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ .root.Values.persistence.size | quote }}
{{- end }}
