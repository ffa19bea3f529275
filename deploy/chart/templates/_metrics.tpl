{{/* What both binaries have for /metrics, if it is served. */}}
{{- define "sockeye.metricsArgs" -}}
{{- with .Values.metrics }}
{{- if .enabled }}
- --metrics-port={{ .port }}
{{- if not .secure }}
- --metrics-plain
{{- else if .certificateSecret }}
- --metrics-certificate=/etc/sockeye/metrics-certificate
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "sockeye.metricsPort" -}}
{{- if .Values.metrics.enabled }}
- {name: metrics, containerPort: {{ .Values.metrics.port }}}
{{- end }}
{{- end }}

{{- define "sockeye.metricsVolume" -}}
{{- with .Values.metrics }}
{{- if and .enabled .secure .certificateSecret }}
- name: metrics-certificate
  secret:
    secretName: {{ .certificateSecret | quote }}
    items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]
{{- end }}
{{- end }}
{{- end }}

{{- define "sockeye.metricsMount" -}}
{{- with .Values.metrics }}
{{- if and .enabled .secure .certificateSecret }}
- name: metrics-certificate
  mountPath: /etc/sockeye/metrics-certificate
  readOnly: true
{{- end }}
{{- end }}
{{- end }}
