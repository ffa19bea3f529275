{{/*
Users by which Kubernetes' own controllers speak, as CEL strings. Without --use-service-account-credentials the
controller manager speaks for all of them by its own name.
*/}}
{{- define "sockeye.garbageCollector" -}}
'system:serviceaccount:kube-system:generic-garbage-collector', 'system:kube-controller-manager'
{{- end }}

{{- define "sockeye.namespaceController" -}}
'system:serviceaccount:kube-system:namespace-controller', 'system:kube-controller-manager'
{{- end }}

{{/* The user of a service account of the chart's, as a CEL string; call with (dict "root" $ "component" "agent"). */}}
{{- define "sockeye.user" -}}
'system:serviceaccount:{{ .root.Release.Namespace }}:sockeye-{{ .component }}'
{{- end }}

{{/*
Binds a policy to all requests that it matches; call with (dict "root" $ "component" "agent" "name" "sockeye-nodes").
*/}}
{{- define "sockeye.policyBinding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}
  labels: {{- include "sockeye.labels" . | nindent 4 }}
spec:
  policyName: {{ .name }}
  validationActions: [Deny]
{{- end }}
