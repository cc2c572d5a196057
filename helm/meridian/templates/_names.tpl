{{- define "meridian.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{/* At most 52 characters: a StatefulSet's pods carry it and a revision in a label of 63. */}}
{{- define "meridian.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "meridian.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "meridian.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "meridian.selectorLabels" -}}
app.kubernetes.io/name: {{ include "meridian.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* What Services select: the region's own pod, or the application's pod that has the sidecar. */}}
{{- define "meridian.podSelector" -}}
{{- if eq .Values.mode "sidecar" }}
{{- toYaml .Values.sidecar.selectorLabels }}
{{- else }}
{{- include "meridian.selectorLabels" . }}
{{- end }}
{{- end }}

{{/* Of the pod: nothing that changes with the chart's version alone, which would restart it. */}}
{{- define "meridian.podLabels" -}}
{{ include "meridian.selectorLabels" . }}
app.kubernetes.io/part-of: meridian
meridian/cluster: {{ .Values.config.cluster | quote }}
meridian/region: {{ .Values.config.region | quote }}
{{- end }}

{{- define "meridian.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "meridian.podLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "meridian.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "meridian.fullname" .) }}
{{- end }}

{{- define "meridian.tlsSecret" -}}
{{- if .Values.tls.certManager.enabled }}
{{- include "meridian.fullname" . }}-tls
{{- else }}
{{- .Values.tls.existingSecret }}
{{- end }}
{{- end }}

{{/* The port of "host:port". */}}
{{- define "meridian.port" -}}
{{- regexFind "[0-9]+$" . }}
{{- end }}
