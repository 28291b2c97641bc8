"""params.yaml and conf/<profile>.yaml -> one checked, frozen `Params`, and the plug-ins and names in it."""
