export class GatewayError extends Error {}
