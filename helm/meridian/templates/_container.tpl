{{- define "meridian.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Of every container: the restricted level of the Pod Security Standards, and a read-only root. */}}
{{- define "meridian.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "meridian.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.runAsUser }}
runAsGroup: {{ .Values.runAsGroup }}
fsGroup: {{ .Values.runAsGroup }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* The proxy. `data` is the name of the volume for log and store. */}}
{{- define "meridian.container" -}}
{{- $data := .data }}
{{- with .root -}}
name: meridian
image: {{ include "meridian.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [--log-format, {{ .Values.logging.format }}, serve, --config, /etc/meridian/config/meridian.toml]
env:
  - name: MERIDIAN_LOG
    value: {{ .Values.logging.filter | quote }}
ports:
  - name: resp
    containerPort: {{ include "meridian.port" .Values.config.listen.resp }}
    protocol: TCP
  - name: link
    containerPort: {{ include "meridian.port" .Values.config.listen.link }}
    protocol: UDP
  - name: admin
    containerPort: {{ include "meridian.port" .Values.config.listen.admin }}
    protocol: TCP
startupProbe:
  httpGet: {path: /healthz, port: admin}
  {{- toYaml .Values.probes.startup | nindent 2 }}
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  {{- toYaml .Values.probes.readiness | nindent 2 }}
livenessProbe:
  httpGet: {path: /healthz, port: admin}
  {{- toYaml .Values.probes.liveness | nindent 2 }}
resources:
  {{- include "meridian.resources" . | nindent 2 }}
securityContext:
  {{- include "meridian.containerSecurity" . | nindent 2 }}
volumeMounts:
  - name: {{ $data }}
    mountPath: {{ .Values.config.dataDir }}
  - name: meridian-config
    mountPath: /etc/meridian/config
    readOnly: true
  {{- if include "meridian.tlsSecret" . }}
  - name: meridian-tls
    mountPath: /etc/meridian/tls
    readOnly: true
  {{- end }}
  {{- if .Values.auth.existingSecret }}
  - name: meridian-auth
    mountPath: /etc/meridian/auth
    readOnly: true
  {{- end }}
  {{- if .Values.admin.existingSecret }}
  - name: meridian-admin
    mountPath: /etc/meridian/admin
    readOnly: true
  {{- end }}
  {{- if .Values.hooks.existingConfigMap }}
  - name: meridian-hooks
    mountPath: /etc/meridian/hooks
    readOnly: true
  {{- end }}
{{- end }}
{{- end }}

{{/*
Sends SIGHUP when the kubelet has swapped the directory of the configuration or of the hooks. Needs the pod's processes to be
visible to each other, and the same user.
*/}}
{{- define "meridian.reloader" -}}
name: meridian-reload
image: {{ .Values.reload.image | quote }}
command:
  - sh
  - -c
  - |
    {{- .Files.Get "files/reload.sh" | trim | nindent 4 }}
  - reload
  - {{ .Values.reload.seconds | quote }}
  - /etc/meridian/config
  {{- if .Values.hooks.existingConfigMap }}
  - /etc/meridian/hooks
  {{- end }}
resources:
  requests: {cpu: 5m, memory: 8Mi}
  limits: {memory: 32Mi}
securityContext:
  {{- include "meridian.containerSecurity" . | nindent 2 }}
volumeMounts:
  - name: meridian-config
    mountPath: /etc/meridian/config
    readOnly: true
  {{- if .Values.hooks.existingConfigMap }}
  - name: meridian-hooks
    mountPath: /etc/meridian/hooks
    readOnly: true
  {{- end }}
{{- end }}

{{/* All volumes but the one for log and store. Modes without a bit for others: the proxy refuses secrets that all can read. */}}
{{- define "meridian.volumes" -}}
- name: meridian-config
  configMap:
    name: {{ include "meridian.fullname" . }}
{{- with include "meridian.tlsSecret" . }}
- name: meridian-tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .Values.auth.existingSecret }}
- name: meridian-auth
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .Values.admin.existingSecret }}
- name: meridian-admin
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .Values.hooks.existingConfigMap }}
- name: meridian-hooks
  configMap:
    name: {{ . }}
{{- end }}
{{- end }}
