export {
  BufferAttribute, BufferGeometry, Bone, Color, DirectionalLight, HemisphereLight, Matrix4, Mesh, MeshStandardMaterial, PCFShadowMap,
  PerspectiveCamera, PlaneGeometry, Quaternion, SRGBColorSpace, Scene, ShadowMaterial, Skeleton, SkinnedMesh, Vector3, WebGLRenderer,
} from "three";
export { GLTFLoader } from "three/examples/jsm/loaders/GLTFLoader.js";
export { VRMLoaderPlugin, VRMUtils } from "@pixiv/three-vrm";
