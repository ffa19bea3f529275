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

{{/* The names of sockeye's CustomResourceDefinitions, which files/crds.yaml holds. */}}
{{- define "sockeye.definitions" -}}
bpfprograms.sockeye.dev bpfrevisions.sockeye.dev bpfnodes.sockeye.dev bpfnodedetails.sockeye.dev
{{- end }}

{{/* Environment of both binaries: the pod's node and namespace, and the log's level and format. */}}
{{- define "sockeye.env" -}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: RUST_LOG
  value: {{ .Values.logLevel | quote }}
- name: SOCKEYE_LOG_FORMAT
  value: {{ .Values.logFormat | quote }}
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

{{/*
The API server's certificate and a token for it, where a client in a pod looks for them. The kubelet renews the token
before its hour is over, and both binaries read it again every minute. A token that Kubernetes mounts by itself is valid
for a year.
*/}}
{{- define "sockeye.tokenVolume" -}}
- name: token
  projected:
    sources:
    - serviceAccountToken: {path: token, expirationSeconds: 3600}
    - configMap:
        name: kube-root-ca.crt
        items: [{key: ca.crt, path: ca.crt}]
    - downwardAPI:
        items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]
{{- end }}

{{- define "sockeye.tokenMount" -}}
- name: token
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end }}

{{/* A pod's node selector: the user's, restricted to Linux. The user's may hold the label kubernetes.io/os too. */}}
{{- define "sockeye.nodeSelector" -}}
{{ toYaml (merge (dict "kubernetes.io/os" "linux") .) }}
{{- end }}

{{/*
A pod's affinity: the user's, restricted to architectures that have images, and to what else is required. Node selector
terms are alternatives, so each gets the requirements. Call with (dict "affinity" .Values.operator.affinity), with
"requires", a list of further requirements, and with "apart", a podAntiAffinity for users who give none.
*/}}
{{- define "sockeye.affinity" -}}
{{- $arch := dict "key" "kubernetes.io/arch" "operator" "In" "values" (list "amd64" "arm64") -}}
{{- $requires := prepend (.requires | default list) $arch -}}
{{- $affinity := deepCopy .affinity -}}
{{- $node := $affinity.nodeAffinity | default dict -}}
{{- $required := $node.requiredDuringSchedulingIgnoredDuringExecution | default dict -}}
{{- $terms := list -}}
{{- range $required.nodeSelectorTerms | default (list dict) -}}
{{- $terms = append $terms (set . "matchExpressions" (concat (.matchExpressions | default list) $requires)) -}}
{{- end -}}
{{- $_ := set $node "requiredDuringSchedulingIgnoredDuringExecution" (set $required "nodeSelectorTerms" $terms) -}}
{{- if and .apart (not (hasKey $affinity "podAntiAffinity")) -}}
{{- $_ := set $affinity "podAntiAffinity" .apart -}}
{{- end -}}
{{- toYaml (set $affinity "nodeAffinity" $node) -}}
{{- end }}

{{/*
Nodes, user and token of pods that run the operator's image: the operator itself, and the chart's Jobs. Call with
(dict "root" $ "dnsPolicy" "Default"). The list of volumes is its end, so that others can follow.
*/}}
{{- define "sockeye.operatorPod" -}}
# Names are those of registries. The API server is known by its address.
dnsPolicy: {{ .dnsPolicy }}
{{- with .root }}
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
automountServiceAccountToken: false
volumes: {{- include "sockeye.tokenVolume" . | nindent 0 }}
{{- end }}
{{- end }}

{{/*
The policy for signatures, as a file of the operator and, with policy.nodes.verify, of the agents. The ConfigMap is
signature-policy.yaml; its digest has pods start anew when it changes.
*/}}
{{- define "sockeye.signaturePolicyDigest" -}}
{{- if .Values.policy.signatures -}}
{{ printf "%s\n%s" (toJson .Values.policy.signatures) .Values.policy.trustedRoot | sha256sum | trunc 16 }}
{{- end }}
{{- end }}

{{- define "sockeye.signaturePolicyArgs" -}}
{{- if .Values.policy.signatures }}
- --signature-policy=/etc/sockeye/signature-policy/policy.json
{{- if .Values.policy.trustedRoot }}
- --trusted-root=/etc/sockeye/signature-policy/trusted_root.json
{{- end }}
{{- end }}
{{- end }}

{{- define "sockeye.signaturePolicyMount" -}}
{{- if .Values.policy.signatures }}
- name: signature-policy
  mountPath: /etc/sockeye/signature-policy
  readOnly: true
{{- end }}
{{- end }}

{{- define "sockeye.signaturePolicyVolume" -}}
{{- if .Values.policy.signatures }}
- name: signature-policy
  configMap: {name: sockeye-signature-policy}
{{- end }}
{{- end }}

{{/* The security context of a container that runs the operator's image. */}}
{{- define "sockeye.operatorSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/*
Lets nothing connect to a component's pods. Only the kubelets' probes connect to sockeye. They need no rule: a policy
never cuts a pod off from its own node. Agents connect to the API server only, by its address, without DNS; the operator
also to registries. No rule can select the API server by labels, so egress is limited only if networkPolicy.apiServer
gives its address. Call with
(dict "root" $ "component" "agent").
*/}}
{{- define "sockeye.networkPolicySpec" -}}
podSelector:
  matchLabels: {{- include "sockeye.selectorLabels" . | nindent 4 }}
{{- $metrics := .root.Values.metrics }}
{{- if and $metrics.enabled $metrics.scraper.namespace (has .component (list "operator" "agent")) }}
ingress:
- from:
  - namespaceSelector:
      matchLabels: {kubernetes.io/metadata.name: {{ $metrics.scraper.namespace | quote }}}
    podSelector:
      matchLabels: {{- toYaml $metrics.scraper.podLabels | nindent 8 }}
  ports:
  - {protocol: TCP, port: {{ $metrics.port }}}
{{- else }}
ingress: []
{{- end }}
{{- with .root.Values.networkPolicy.apiServer }}
policyTypes: [Ingress, Egress]
egress:
{{- $others := ternary $.root.Values.networkPolicy.registries list (eq $.component "operator") }}
{{- range concat . $others }}
- to:
  - ipBlock: {cidr: {{ .cidr | quote }}}
  ports:
  - {protocol: TCP, port: {{ .port }}}
  {{- if eq (int .port) 53 }}
  - {protocol: UDP, port: 53}
  {{- end }}
{{- end }}
{{- else }}
policyTypes: [Ingress]
{{- end }}
{{- end }}
