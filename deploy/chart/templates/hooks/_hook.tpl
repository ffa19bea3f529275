{{/*
A Job of the operator's image that Helm runs at some point of a release's life, with rights of its own, and nothing of it
left afterwards; a Job that failed stays for its log, ten minutes. Call with
(dict "root" $ "name" "crds" "events" "pre-install,pre-upgrade" "args" (list) "seconds" 60 "rules" (list)), with
"namespaced" for rules that are about the release namespace only, and with "tells" where Helm prints the log of one that
succeeded, too.
*/}}
{{- define "sockeye.hook" -}}
{{- $name := printf "sockeye-%s" .name }}
{{- $labels := include "sockeye.labels" (dict "root" .root "component" .name) }}
{{- $namespace := .root.Release.Namespace }}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $name }}
  namespace: {{ $namespace }}
  labels: {{- $labels | nindent 4 }}
  annotations: {{- include "sockeye.hookAnnotations" (dict "events" .events "weight" "-2") | nindent 4 }}
automountServiceAccountToken: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $name }}
  labels: {{- $labels | nindent 4 }}
  annotations: {{- include "sockeye.hookAnnotations" (dict "events" .events "weight" "-2") | nindent 4 }}
rules: {{- toYaml .rules | nindent 0 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $name }}
  labels: {{- $labels | nindent 4 }}
  annotations: {{- include "sockeye.hookAnnotations" (dict "events" .events "weight" "-1") | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ $name }}
subjects:
- kind: ServiceAccount
  name: {{ $name }}
  namespace: {{ $namespace }}
---
{{- if .namespaced }}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ $namespace }}
  labels: {{- $labels | nindent 4 }}
  annotations: {{- include "sockeye.hookAnnotations" (dict "events" .events "weight" "-2") | nindent 4 }}
rules: {{- toYaml .namespaced | nindent 0 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ $namespace }}
  labels: {{- $labels | nindent 4 }}
  annotations: {{- include "sockeye.hookAnnotations" (dict "events" .events "weight" "-1") | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
- kind: ServiceAccount
  name: {{ $name }}
  namespace: {{ $namespace }}
---
{{- end }}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ $name }}
  namespace: {{ $namespace }}
  labels: {{- $labels | nindent 4 }}
  annotations:
    {{- include "sockeye.hookAnnotations" (dict "events" .events "weight" "0") | nindent 4 }}
    # Helm prints why it failed.
    helm.sh/hook-output-log-policy: {{ if .tells }}hook-succeeded,{{ end }}hook-failed
spec:
  # It tries again by itself until its time is up.
  backoffLimit: 0
  # With time to spare for the image.
  activeDeadlineSeconds: {{ add .seconds 120 }}
  ttlSecondsAfterFinished: 600
  template:
    metadata:
      labels: {{- include "sockeye.selectorLabels" (dict "component" .name) | nindent 8 }}
    spec:
      serviceAccountName: {{ $name }}
      automountServiceAccountToken: true
      restartPolicy: Never
      {{- include "sockeye.operatorPod" .root | nindent 6 }}
      containers:
      - name: {{ .name }}
        image: {{ include "sockeye.image" (dict "root" .root "image" .root.Values.operator.image) | quote }}
        imagePullPolicy: {{ .root.Values.image.pullPolicy }}
        args: {{- toYaml .args | nindent 8 }}
        env: {{- include "sockeye.env" .root | nindent 8 }}
        terminationMessagePolicy: FallbackToLogsOnError
        securityContext: {{- include "sockeye.operatorSecurity" . | nindent 10 }}
        {{- with .root.Values.operator.resources }}
        resources: {{- toYaml . | nindent 10 }}
        {{- end }}
{{- end }}

{{/* What the rights stand on is made before them, and they before the Job. */}}
{{- define "sockeye.hookAnnotations" -}}
helm.sh/hook: {{ .events }}
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
