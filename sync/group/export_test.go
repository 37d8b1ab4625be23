package group

// Incarnation is what this device writes under from now on.
func (g *Group) Incarnation() uint64 { return g.inc.Load() }
