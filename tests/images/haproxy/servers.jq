# One line for each running task of another service that shares a network with this container.
# Input: this container, the services, the tasks.
.[0] as $self | .[1] as $services | .[2] as $tasks
| ($services | map({key: .ID, value: .Spec.Name}) | from_entries) as $names
| [$self.NetworkSettings.Networks[].NetworkID] as $networks
| [
    $tasks[]
    | select(.Status.State == "running" and $names[.ServiceID] != null)
    | select(.ServiceID != $self.Config.Labels["com.docker.swarm.service.id"])
    | [
        .NetworksAttachments[]?
        | select(.Network.Spec.Ingress != true and (.Network.ID | IN($networks[])))
        | .Addresses[0] | split("/")[0]
      ][0] as $address
    | select($address != null)
    | ([.Spec.ContainerSpec.Env[]? | select(startswith("SERVICE_PORTS="))][0] // "=80"
        | split("=")[1] | split(",")[0]) as $port
    | "  server \($names[.ServiceID]).\(.Slot // .NodeID).\(.ID) \($address):\($port) check inter 1s fall 1 rise 1"
  ]
| sort[]
