# Input: nodes, services, tasks.
.[0] as $nodes | .[1] as $services | .[2] as $tasks
| ($services | map({key: .ID, value: .Spec.Name}) | from_entries) as $names
| if ($nodes | type) != "array" or ($tasks | type) != "array" then error("no answer") else . end
| "<!doctype html><title>Cluster</title><meta http-equiv=refresh content=5>
<style>body{font:14px sans-serif;display:flex;gap:1em}section{border:1px solid;padding:.5em}li{list-style:none}</style>",
  (
    $nodes | sort_by(.Spec.Role, .Description.Hostname)[]
    | .ID as $node
    | "<section><h2>\(.Description.Hostname | @html)</h2><p>\(.Spec.Role) \(.Status.State)</p><ul>",
      (
        [
          $tasks[]
          | select(.NodeID == $node and .DesiredState == "running")
          | "<li>\($names[.ServiceID] // .ServiceID | @html).\(.Slot // $node) \(.Status.State)</li>"
        ]
        | sort[]
      ),
      "</ul></section>"
  )
