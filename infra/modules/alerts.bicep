// What a person should hear of. The queries read lines that the handler logs.
@description('Region of the resources')
param location string

@description('Tags of every resource')
param tags { *: string }

@description('Name of the action group')
param actionGroupName string

@description('What the names begin with')
param namePrefix string

@description('Who is told; empty: nobody')
param email string

@description('Action groups of yours that are told, by their ids')
param actionGroupIds string[]

@description('Where the runbooks are')
param runbookUrl string

@description('Address of the dashboard')
param dashboardUrl string

@description('A time in which two sweeps come for sure')
param sweepWindow string

@description('Name of Application Insights: in a workspace of many its lines are told apart by it')
param insightsName string

@description('Log Analytics workspace, by its id')
param workspaceId string

@description('The Service Bus namespace, by its id')
param busId string

@description('Name of the queue of commands')
param commandQueue string

@description('Name of the queue of the vault\'s events')
param vaultEventQueue string

@description('Name of the queue of consumers\' confirmations')
param confirmationQueue string

@description('The vault\'s system topic, by its id')
param systemTopicId string

var hasOwnGroup = !empty(email) || empty(actionGroupIds)
var groupIds = concat(hasOwnGroup ? [people.id] : [], actionGroupIds)

resource people 'Microsoft.Insights/actionGroups@2023-01-01' = if (hasOwnGroup) {
  name: actionGroupName
  location: 'global'
  tags: tags
  properties: {
    groupShortName: 'patrol'
    enabled: true
    emailReceivers: empty(email)
      ? []
      : [
          {
            name: 'email'
            emailAddress: email
            useCommonAlertSchema: true
          }
        ]
  }
}

// Each query asks for what stands as of the last sweeps, not for an event that is told
// once: an alert lasts as long as its trouble. Rows: more than 0, or (below) fewer than 1.
// What it is about goes into the mail as dimensions.
var about = ['subject', 'displayName', 'class', 'code']
var queries = [
  {
    name: 'rotation-failed'
    text: 'A PAT could not be rotated; patrol has said why in an event and in its log'
    query: loadTextContent('../queries/rotation-failed.kql')
    severity: 1
    every: 'PT15M'
    dimensions: about
    operator: 'GreaterThan'
    threshold: 0
  }
  {
    name: 'sign-in-required'
    text: 'An identity must sign in again before its PATs end'
    query: loadTextContent('../queries/sign-in-required.kql')
    severity: 1
    every: 'PT15M'
    dimensions: about
    operator: 'GreaterThan'
    threshold: 0
  }
  {
    name: 'check-incomplete'
    text: 'patrol cannot observe everything, or waits for a person before it acts'
    query: loadTextContent('../queries/check-incomplete.kql')
    severity: 1
    every: 'PT15M'
    dimensions: about
    operator: 'GreaterThan'
    threshold: 0
  }
  {
    name: 'ends-soon'
    text: 'A PAT has less than 48 hours left and no successor'
    query: loadTextContent('../queries/ends-soon.kql')
    severity: 0
    every: 'PT1H'
    dimensions: about
    operator: 'GreaterThan'
    threshold: 0
  }
  {
    name: 'sign-in-expiring'
    text: 'A sign-in has not been used for long and will be lost'
    query: loadTextContent('../queries/sign-in-expiring.kql')
    severity: 2
    every: 'PT1H'
    dimensions: about
    operator: 'GreaterThan'
    threshold: 0
  }
  {
    name: 'expiring'
    text: 'A PAT that nobody manages will end'
    query: loadTextContent('../queries/expiring.kql')
    severity: 3
    every: 'PT1H'
    dimensions: about
    operator: 'GreaterThan'
    threshold: 0
  }
  {
    name: 'no-sweep'
    text: 'No sweep has ended for two intervals of the schedule'
    query: loadTextContent('../queries/sweeps.kql')
    severity: 1
    every: 'PT1H'
    dimensions: []
    operator: 'LessThan'
    threshold: 1
  }
]

resource fromLogs 'Microsoft.Insights/scheduledQueryRules@2026-03-01' = [
  for q in queries: {
    name: '${namePrefix}-${q.name}'
    location: location
    tags: tags
    kind: 'LogAlert'
    properties: {
      displayName: 'patrol: ${q.name}'
      description: '${q.text}. Runbook: ${runbookUrl}#${q.name}. Dashboard: ${dashboardUrl}'
      severity: q.severity
      enabled: true
      scopes: [workspaceId]
      evaluationFrequency: q.every
      windowSize: sweepWindow
      // A new workspace has no table yet that the query could be tried on.
      skipQueryValidation: true
      autoMitigate: true
      criteria: {
        allOf: [
          {
            query: replace(
              q.query,
              '{insights}',
              toLower(resourceId('Microsoft.Insights/components', insightsName))
            )
            timeAggregation: 'Count'
            operator: q.operator
            threshold: q.threshold
            dimensions: [
              for d in q.dimensions: {
                name: d
                operator: 'Include'
                values: ['*']
              }
            ]
            failingPeriods: {
              numberOfEvaluationPeriods: 1
              minFailingPeriodsToAlert: 1
            }
          }
        ]
      }
      actions: {
        actionGroups: groupIds
        customProperties: {
          runbook: '${runbookUrl}#${q.name}'
          dashboard: dashboardUrl
        }
      }
    }
  }
]

var metrics = [
  {
    name: 'dead-letters'
    text: 'A message has gone to a dead-letter queue and stays there'
    namespace: 'Microsoft.ServiceBus/namespaces'
    metric: 'DeadletteredMessages'
    aggregation: 'Maximum'
    window: 'PT15M'
    dimension: 'EntityName'
    values: ['*']
  }
  {
    name: 'event-delivery'
    text: 'Event Grid could not deliver an event of the vault to its queue'
    namespace: 'Microsoft.EventGrid/systemTopics'
    metric: 'DeliveryAttemptFailCount'
    aggregation: 'Total'
    window: 'PT15M'
    dimension: 'EventSubscriptionName'
    values: ['*']
  }
  {
    // The least of half an hour is more than 0: nothing has emptied the queue in it.
    name: 'waiting-messages'
    text: 'A queue has had messages for half an hour that nobody took: the app does not wake'
    namespace: 'Microsoft.ServiceBus/namespaces'
    metric: 'ActiveMessages'
    aggregation: 'Minimum'
    window: 'PT30M'
    dimension: 'EntityName'
    values: [commandQueue, vaultEventQueue, confirmationQueue]
  }
]

resource fromMetrics 'Microsoft.Insights/metricAlerts@2026-01-01' = [
  for (m, i) in metrics: {
    name: '${namePrefix}-${m.name}'
    location: 'global'
    tags: tags
    properties: {
      description: '${m.text}. Runbook: ${runbookUrl}#${m.name}. Dashboard: ${dashboardUrl}'
      severity: 2
      enabled: true
      scopes: [[busId, systemTopicId, busId][i]]
      evaluationFrequency: 'PT5M'
      windowSize: m.window
      autoMitigate: true
      criteria: {
        'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
        allOf: [
          {
            criterionType: 'StaticThresholdCriterion'
            name: m.name
            metricNamespace: m.namespace
            metricName: m.metric
            timeAggregation: m.aggregation
            operator: 'GreaterThan'
            threshold: 0
            dimensions: [
              {
                name: m.dimension
                operator: 'Include'
                values: m.values
              }
            ]
          }
        ]
      }
      actions: [for id in groupIds: { actionGroupId: id }]
    }
  }
]
