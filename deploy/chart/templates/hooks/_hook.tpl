{{/*
A Job that runs the operator's image as a Helm hook, with its own service account and rights. Nothing of it is left
afterwards; a Job that failed stays for ten minutes, for its log, and has no rights by then. Call with
(dict "root" $ "name" "crds" "events" "pre-install,pre-upgrade" "args" (list) "seconds" 60 "rules" (list)).
Add "namespaced" for rules that apply to the release namespace only. Add "tells" to have Helm print the log of a Job that
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
{{- if .root.Values.networkPolicy.enabled }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ $name }}
  namespace: {{ $namespace }}
  labels: {{- $labels | nindent 4 }}
  annotations: {{- include "sockeye.hookAnnotations" (dict "events" .events "weight" "-2") | nindent 4 }}
spec: {{- include "sockeye.networkPolicySpec" (dict "root" .root "component" .name) | nindent 2 }}
---
{{- end }}
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
    {{- include "sockeye.hookAnnotations" (dict "events" .events "weight" "0" "stays" true) | nindent 4 }}
    # Helm prints the log of a Job that failed.
    helm.sh/hook-output-log-policy: {{ if .tells }}hook-succeeded,{{ end }}hook-failed
spec:
  # The process itself retries until its time is up.
  backoffLimit: 0
  # 120 s more, for pulling the image.
  activeDeadlineSeconds: {{ add .seconds 120 }}
  ttlSecondsAfterFinished: 600
  template:
    metadata:
      labels: {{- include "sockeye.selectorLabels" (dict "component" .name) | nindent 8 }}
    spec:
      serviceAccountName: {{ $name }}
      restartPolicy: Never
      {{- include "sockeye.operatorPod" (dict "root" .root "dnsPolicy" "Default") | nindent 6 }}
      affinity: {{- include "sockeye.affinity" (dict "affinity" .root.Values.operator.affinity) | nindent 8 }}
      containers:
      - name: {{ .name }}
        image: {{ include "sockeye.image" (dict "root" .root "image" .root.Values.operator.image) | quote }}
        imagePullPolicy: {{ .root.Values.image.pullPolicy }}
        args: {{- toYaml .args | nindent 8 }}
        env: {{- include "sockeye.env" .root | nindent 8 }}
        terminationMessagePolicy: FallbackToLogsOnError
        securityContext: {{- include "sockeye.operatorSecurity" . | nindent 10 }}
        volumeMounts: {{- include "sockeye.tokenMount" . | nindent 8 }}
        {{- with .root.Values.operator.resources }}
        resources: {{- toYaml . | nindent 10 }}
        {{- end }}
{{- end }}

{{/*
Weights: service account and roles are created before the bindings, and the bindings before the Job. If the Job fails, Helm
deletes what it created before by hook-succeeded, and Argo CD by hook-failed. Add "stays" for what is to be read then.
*/}}
{{- define "sockeye.hookAnnotations" -}}
helm.sh/hook: {{ .events }}
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded{{ if not .stays }},hook-failed{{ end }}
{{- end }}
