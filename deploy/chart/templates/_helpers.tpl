{{/* The labels of every object; call with (dict "root" $ "component" "agent"). */}}
{{- define "sockeye.labels" -}}
{{ include "sockeye.selectorLabels" . }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: sockeye
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The labels that select a component's pods. The operator finds the agents by these two, so no value changes them. */}}
{{- define "sockeye.selectorLabels" -}}
app.kubernetes.io/name: sockeye
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* An image reference; call with (dict "root" $ "image" .Values.agent.image). */}}
{{- define "sockeye.image" -}}
{{- $repository := .image.repository -}}
{{- with .root.Values.image.registry }}{{ $repository = printf "%s/%s" . $repository }}{{ end -}}
{{- if .image.digest -}}
{{ printf "%s@%s" $repository .image.digest }}
{{- else -}}
{{ printf "%s:%s" $repository (.image.tag | default .root.Chart.AppVersion) }}
{{- end -}}
{{- end }}

{{/* Environment of both binaries: the pod's node and namespace, and the log level. */}}
{{- define "sockeye.env" -}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: RUST_LOG
  value: {{ .Values.logLevel | quote }}
{{- end }}

{{/* Both binaries answer GET /healthz and /readyz on the port named health. */}}
{{- define "sockeye.probes" -}}
livenessProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 10
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 5
  failureThreshold: 3
{{- end }}

{{/* A pod's node selector: the user's, restricted to Linux. The user's may hold the label kubernetes.io/os too. */}}
{{- define "sockeye.nodeSelector" -}}
{{ toYaml (merge (dict "kubernetes.io/os" "linux") .) }}
{{- end }}

{{/*
A pod's affinity: the user's, restricted to architectures that have images. Node selector terms are alternatives, so each
gets the architectures. Call with the user's affinity.
*/}}
{{- define "sockeye.affinity" -}}
{{- $arch := dict "key" "kubernetes.io/arch" "operator" "In" "values" (list "amd64" "arm64") -}}
{{- $affinity := deepCopy . -}}
{{- $node := $affinity.nodeAffinity | default dict -}}
{{- $required := $node.requiredDuringSchedulingIgnoredDuringExecution | default dict -}}
{{- $terms := list -}}
{{- range $required.nodeSelectorTerms | default (list dict) -}}
{{- $terms = append $terms (set . "matchExpressions" (append (.matchExpressions | default list) $arch)) -}}
{{- end -}}
{{- $_ := set $node "requiredDuringSchedulingIgnoredDuringExecution" (set $required "nodeSelectorTerms" $terms) -}}
{{- toYaml (set $affinity "nodeAffinity" $node) -}}
{{- end }}

{{/* Scheduling and user of pods that run the operator's image: the operator itself, and the chart's Jobs. */}}
{{- define "sockeye.operatorPod" -}}
# The operator looks up no names.
dnsPolicy: Default
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.operator.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
nodeSelector: {{- include "sockeye.nodeSelector" .Values.operator.nodeSelector | nindent 2 }}
{{- with .Values.operator.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
affinity: {{- include "sockeye.affinity" .Values.operator.affinity | nindent 2 }}
{{- end }}

{{/* The security context of a container that runs the operator's image. */}}
{{- define "sockeye.operatorSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
