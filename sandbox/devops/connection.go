package devops

import "net/http"

type wireIdentity struct {
	ID                  string         `json:"id"`
	Descriptor          string         `json:"descriptor"`
	SubjectDescriptor   string         `json:"subjectDescriptor"`
	ProviderDisplayName string         `json:"providerDisplayName"`
	IsActive            bool           `json:"isActive"`
	Properties          map[string]any `json:"properties"`
}

// connectionData says who calls.
func (s *Service) connectionData(a *answer, o *organization, c caller) {
	who := wireIdentity{ID: AnonymousID, Descriptor: "System:PublicAccess;" + AnonymousID, SubjectDescriptor: "sys." +
		AnonymousID, ProviderDisplayName: "Anonymous", IsActive: true, Properties: map[string]any{}}
	if u := c.user; u != nil {
		who = wireIdentity{
			ID: u.id, Descriptor: "Microsoft.IdentityModel.Claims.ClaimsIdentity;" + o.TenantID + `\` + u.UPN,
			SubjectDescriptor:   u.descriptor,
			ProviderDisplayName: u.DisplayName, IsActive: true,
			Properties: map[string]any{"Account": map[string]any{"$type": "System.String", "$value": u.UPN}},
		}
	}
	a.json(http.StatusOK, map[string]any{
		"authenticatedUser": who, "authorizedUser": who,
		"instanceId": o.id, "deploymentId": "6a8d3f55-8a4f-4fb7-9f2b-0d4a7ad2a9c1", "deploymentType": "hosted",
		"locationServiceData": map[string]any{"serviceOwner": "00025394-6065-48ca-87d9-7f5672854ef7",
			"defaultAccessMappingMoniker": "PublicAccessMapping", "lastChangeId": 1, "lastChangeId64": 1},
	})
}
