//! Injector and discovery of the mesh, from the Kubernetes API.
